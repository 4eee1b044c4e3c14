"use strict";
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  const status = document.getElementById("sort-status");
  const first = [...body.rows];
  table.querySelectorAll("thead button").forEach((button) => {
    const head = button.closest("th");
    button.addEventListener("click", () => {
      const column = head.cellIndex;
      const start = head.dataset.first || "descending";
      const other = start === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === start ? other : start;
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const numbers = [Number(x), Number(y)];
        const both = numbers.every((n) => !Number.isNaN(n));
        const difference = both ? numbers[0] - numbers[1] : x.localeCompare(y);
        return sign * difference || first.indexOf(a) - first.indexOf(b);
      };
      body.append(...[...body.rows].sort(compare));
      table.querySelectorAll("th[aria-sort]").forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      if (status) status.textContent = `Sorted by ${button.textContent.trim()}, ${order}`;
    });
  });
});
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", open);
open();
