"use strict";

// Two buttons above each table put it on the clipboard, as Markdown or as LaTeX (booktabs). What is
// copied are the rows that are shown, as text.
(() => {
  const squeeze = (text) => text.replace(/\s+/g, " ").trim();

  // The rows of a table as texts; a cell over several columns is followed by empty ones.
  function grid(table) {
    return [...table.rows]
      .filter((row) => row.cells.length)
      .map((row) => [...row.cells].flatMap((cell) => [words(cell), ...Array(cell.colSpan - 1).fill("")]));
  }

  // Small print stands on a line of its own on the page; here a space keeps it apart.
  function words(cell) {
    if (cell.classList.contains("feature-tokens"))
      return [...cell.children].map((token) => squeeze(token.textContent)).join(" ");
    const copy = cell.cloneNode(true);
    for (const small of copy.querySelectorAll("small, .counts > span")) small.before(" ");
    return squeeze(copy.textContent).replace(/ [↓↑]$/, "");
  }

  function numeric(table) {
    const last = table.tBodies[0]?.rows[0] ?? table.rows[0];
    return [...last.cells].flatMap((cell) => Array(cell.colSpan).fill(cell.classList.contains("num")));
  }

  function filled(rows) {
    const width = Math.max(...rows.map((row) => row.length));
    return rows.map((row) => [...row, ...Array(width - row.length).fill("")]);
  }

  function markdown(table) {
    const escaped = (text) => text.replace(/[\\|`*_<>[\]]/g, "\\$&");
    const right = numeric(table);
    const [head, ...body] = filled(grid(table)).map((row) => `| ${row.map(escaped).join(" | ")} |`);
    const rule = filled(grid(table))[0].map((_, i) => (right[i] ? "---:" : "---"));
    return [head, `| ${rule.join(" | ")} |`, ...body, ""].join("\n");
  }

  const COMMANDS = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "▲": "$\\blacktriangle$", "▼": "$\\blacktriangledown$", "−": "$-$", "–": "--", "‖": "$\\|$",
    "Δ": "$\\Delta$", "·": "$\\cdot$", "°": "$^\\circ$", "∞": "$\\infty$", "×": "$\\times$",
    "≈": "$\\approx$", "≥": "$\\geq$", "≤": "$\\leq$", "λ": "$\\lambda$", "²": "$^2$", "₀": "$_0$",
    "±": "$\\pm$", "→": "$\\to$", "…": "\\dots{}",
  };

  function latex(table) {
    const one = (c) => COMMANDS[c] ?? ("&%$#_{}".includes(c) ? `\\${c}` : c);
    const row = (cells) => `${cells.map((text) => [...text].map(one).join("")).join(" & ")} \\\\`;
    const rows = filled(grid(table));
    const columns = numeric(table);
    const letters = rows[0].map((_, i) => (columns[i] ? "r" : "l")).join("");
    const heads = table.tHead ? table.tHead.rows.length : 0;
    const [head, body] = [rows.slice(0, heads), rows.slice(heads)];
    const top = head.length ? [...head.map(row), "\\midrule"] : [];
    const whole = [`\\begin{tabular}{${letters}}`, "\\toprule", ...top, ...body.map(row)];
    return [...whole, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  // Where a page from disk may not use the clipboard, a selection that is copied does the same.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.style.position = "fixed";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  const KINDS = { Markdown: markdown, LaTeX: latex };

  function buttons(table) {
    const bar = document.createElement("p");
    bar.className = "copies";
    bar.append("Copy as ");
    for (const [name, made] of Object.entries(KINDS)) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: name });
      button.dataset.copy = name;
      button.addEventListener("click", async () => {
        button.textContent = (await copy(made(table))) ? "copied" : "not allowed here";
        setTimeout(() => (button.textContent = name), 1500);
      });
      bar.append(button, " ");
    }
    return bar;
  }

  for (const table of document.querySelectorAll("main table")) {
    if (table.closest("#features-detail")) continue;
    const place = table.closest(".scroll") ?? table;
    place.before(buttons(table));
  }

  window.lorascopeCopying = { markdown, latex };
})();
