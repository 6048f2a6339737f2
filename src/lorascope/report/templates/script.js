"use strict";

(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Set();

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const [ink, soft, line, paper] = ["--ink", "--soft", "--line", "--card"].map(colour);
    const font = getComputedStyle(document.body).fontFamily;
    const words = { labelColor: soft, titleColor: soft, labelFont: font, titleFont: font };
    return {
      background: paper,
      font,
      view: { stroke: line },
      axis: { ...words, titleFontWeight: 500, gridColor: line, domainColor: line, tickColor: line },
      legend: { ...words, titleFontWeight: 500 },
      header: { ...words, labelColor: ink },
    };
  }

  function draw(place) {
    const name = place.dataset.figure;
    drawn.add(place);
    return window.vegaEmbed(place, specs[name], {
      mode: "vega-lite",
      renderer: "svg",
      config: theme(),
      downloadFileName: name,
      scaleFactor: { png: 2 },
      actions: { export: true, source: false, compiled: false, editor: false },
    });
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((each) => each.isIntersecting)) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "600px" },
  );

  document.querySelectorAll(".chart").forEach((place) => watcher.observe(place));
  dark.addEventListener("change", () => drawn.forEach(draw));
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll(".chart").forEach((place) => drawn.has(place) || draw(place));
  });
})();
