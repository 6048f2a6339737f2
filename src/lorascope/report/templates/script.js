"use strict";

(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

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
    return window.vegaEmbed(place, specs[name], {
      mode: "vega-lite",
      renderer: "svg",
      config: theme(),
      downloadFileName: name,
      scaleFactor: { png: 2 },
      actions: { export: true, source: false, compiled: false, editor: false },
    });
  }

  // One after another, so that the page answers while it fills.
  async function drawAll() {
    for (const place of document.querySelectorAll(".chart")) {
      await draw(place);
    }
  }

  dark.addEventListener("change", drawAll);
  drawAll();
})();
