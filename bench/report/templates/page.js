"use strict";
(() => {
  const root = document.documentElement;
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;

  // Light or dark: the system's choice until the button says otherwise.
  const button = document.getElementById("theme");
  const show = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("hopbench-theme", value);
      return localStorage.getItem("hopbench-theme");
    } catch { // Pages opened from a file may have no storage.
      return null;
    }
  };
  const earlier = remembered();
  if (earlier === "dark" || earlier === "light") root.dataset.theme = earlier;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();

  // Tables: a column at a time, rows without a value last in both directions.
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, column, numeric) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    if (!numeric) return text === "" || text === "-" ? null : text;
    const value = Number(cell.dataset.value ?? text.replaceAll(",", "") ?? "");
    return cell.dataset.value === undefined && text === "" || Number.isNaN(value) ? null : value;
  };
  const sort = (table, header) => {
    const headers = [...header.parentNode.cells];
    const column = headers.indexOf(header);
    const down = header.getAttribute("aria-sort") === "ascending";
    const numeric = header.classList.contains("numeric");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, column, numeric), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = numeric ? a - b : collator.compare(a, b);
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
    for (const each of headers) each.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  for (const table of document.querySelectorAll("table")) {
    for (const header of table.querySelectorAll("th")) {
      header.querySelector("button")?.addEventListener("click", () => sort(table, header));
    }
  }

  // Contents: open beside the page, folded above it; the section in view is marked.
  const contents = document.querySelector("nav details");
  const wide = matchMedia("(min-width: 75rem)");
  const fold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  contents.addEventListener("click", (event) => {
    if (!wide.matches && event.target.closest("a")) contents.open = false;
  });
  const links = new Map([...contents.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
  const sections = [...document.querySelectorAll("main > section")];
  let waiting = false;
  const mark = () => {
    waiting = false;
    const above = sections.filter((each) => each.getBoundingClientRect().top < innerHeight / 3);
    const current = above.at(-1);
    for (const [name, link] of links) {
      if (current && name === current.id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, { passive: true });
  mark();

  // On paper nothing can be unfolded.
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details.more")) each.open = true;
  });
})();
