// The theme's script puts wide tables into boxes that scroll, and a landmark beside each block of code:
// the first are to be scrolled by keys, too, the second are no landmarks.
new MutationObserver(() => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) box.tabIndex = 0;
  for (const buttons of document.querySelectorAll(".md-code__nav")) buttons.role = "none";
}).observe(document.body, { childList: true, subtree: true });
