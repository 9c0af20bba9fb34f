// Without this script the titles are plain text, and nothing says that they can be clicked.
for (const text of document.querySelectorAll("table.sortable caption > span")) {
  const hint = document.createElement("span");
  hint.className = "hint";
  hint.textContent = " Click on a title to sort.";
  text.append(hint);
}
for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    // Means have a body of their own, below.
    const body = head.closest("table").tBodies[0];
    const place = head.cellIndex;
    const falling = head.getAttribute("aria-sort") === "ascending";
    const value = row => {
      const cell = row.cells[place];
      const text = (cell.dataset.value ?? cell.textContent).trim().replace("−", "-");
      const number = parseFloat(text.replaceAll(",", ""));
      return Number.isNaN(number) ? text : number;
    };
    const compare = (a, b) => {
      const one = value(a), other = value(b);
      // Numbers come before words, and before what is undefined.
      if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
      const order = typeof one === "number" ? one - other : one.localeCompare(other);
      return falling ? -order : order;
    };
    for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  });
}
