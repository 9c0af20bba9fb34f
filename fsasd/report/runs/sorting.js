for (const head of document.querySelectorAll("table.sortable thead button")) {
  head.addEventListener("click", () => {
    const cell = head.closest("th"), body = cell.closest("table").tBodies[0];
    const place = [...cell.parentNode.children].indexOf(cell);
    const falling = cell.getAttribute("aria-sort") === "ascending";
    const value = row => {
      const text = row.children[place].textContent.trim().replace("−", "-");
      const number = parseFloat(text.replaceAll(",", ""));
      return Number.isNaN(number) ? text : number;
    };
    const compare = (a, b) => {
      const one = value(a), other = value(b);
      if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
      const order = typeof one === "number" ? one - other : one.localeCompare(other);
      return falling ? -order : order;
    };
    for (const other of cell.parentNode.children) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  });
}
