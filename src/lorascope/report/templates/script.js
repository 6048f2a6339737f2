"use strict";

// Figures and the theme. Figures keep the colours of the exported files, style.css paints them over
// on the page: a change of theme redraws nothing, and what is saved is always on white.
(() => {
  const data = document.getElementById("specs");
  const specs = JSON.parse(data.textContent);
  const config = JSON.parse(data.dataset.config ?? "{}");
  const drawn = new Map();

  function draw(place) {
    const name = place.dataset.figure;
    if (!drawn.has(name)) {
      const options = { mode: "vega-lite", renderer: "svg", ast: true, actions: false, config };
      drawn.set(name, window.vegaEmbed(place, specs[name], options));
    }
    return drawn.get(name);
  }

  // Those near the window first, the others when there is time: a printed page has them all.
  const places = [...document.querySelectorAll(".chart[data-figure]")];
  const watch = new IntersectionObserver(
    (entries) => entries.filter((each) => each.isIntersecting).forEach((each) => draw(each.target)),
    { rootMargin: "600px" }
  );
  places.forEach((place) => watch.observe(place));
  const idle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 50));
  function drawNext() {
    const next = places.find((place) => !drawn.has(place.dataset.figure));
    if (next) draw(next).finally(() => idle(drawNext));
  }
  idle(drawNext);

  // The rows behind a figure, wherever in its specification they stand.
  function rows(spec) {
    if (Array.isArray(spec)) return spec.flatMap(rows);
    if (spec === null || typeof spec !== "object") return [];
    const here = Array.isArray(spec.data?.values) ? spec.data.values : [];
    return [...here, ...Object.entries(spec).flatMap(([k, v]) => (k === "data" ? [] : rows(v)))];
  }

  const UNWANTED = new Set(["label", "printed", "printed chance", "interval", "chance interval"]);

  function cell(value) {
    if (value === null || value === undefined) return "";
    let text = String(value);
    // A spreadsheet would take such a text for a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv(spec) {
    const found = rows(spec);
    const columns = [...new Set(found.flatMap(Object.keys))].filter((name) => !UNWANTED.has(name));
    const lines = found.map((row) => columns.map((name) => cell(row[name])).join(","));
    return [columns.map(cell).join(","), ...lines, ""].join("\n");
  }

  function save(name, href) {
    const link = document.createElement("a");
    Object.assign(link, { download: name, href });
    link.click();
  }

  function saveText(name, text, type) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    save(name, address);
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  async function saveFigure(place, kind) {
    const name = place.dataset.figure;
    if (kind === "csv") return saveText(`${name}.csv`, csv(specs[name]), "text/csv");
    const { view } = await draw(place);
    if (kind === "png") return save(`${name}.png`, await view.toImageURL("png", 3));
    return saveText(`${name}.svg`, await view.toSVG(), "image/svg+xml");
  }

  document.addEventListener("click", (event) => {
    const kind = event.target.dataset?.save;
    const place = kind && event.target.closest("figure")?.querySelector(".chart[data-figure]");
    if (place) saveFigure(place, kind);
  });

  // The theme: the system's, light or dark; the dark colours are one media rule of the style.
  const SCREEN = "screen and (prefers-color-scheme: dark)";
  const THEMES = { auto: SCREEN, light: "not all", dark: "screen" };
  const NAMES = { auto: "◐ auto", light: "○ light", dark: "● dark" };
  const button = document.getElementById("theme");
  const dark = [...document.styleSheets[0].cssRules].find(
    (rule) => rule.media?.mediaText === SCREEN
  );

  function setTheme(theme) {
    dark.media.mediaText = THEMES[theme];
    document.documentElement.style.colorScheme = theme === "auto" ? "" : theme;
    button.dataset.theme = theme;
    button.textContent = NAMES[theme];
  }

  function remembered() {
    try {
      const theme = localStorage.getItem("lorascope-theme");
      return Object.hasOwn(THEMES, theme) ? theme : "auto";
    } catch {
      return "auto";
    }
  }

  if (!button) return;
  button.hidden = false;
  setTheme(remembered());
  button.addEventListener("click", () => {
    const order = Object.keys(THEMES);
    const next = order[(order.indexOf(button.dataset.theme) + 1) % order.length];
    setTheme(next);
    try {
      localStorage.setItem("lorascope-theme", next);
    } catch {
      // The page is read where nothing may be kept; the choice lasts until it is closed.
    }
  });
})();
