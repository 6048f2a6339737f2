"use strict";

// Two conditions side by side: their numbers, and their strongest latents with each one's nearest
// on the other side. Latents come from the browser of features.js, where the page has one.
(() => {
  const MOST = 10;
  const data = JSON.parse(document.getElementById("sides-data").textContent);
  const browser = window.lorascopeBrowser;
  const at = (name) => document.getElementById(`sides-${name}`);
  const make = (tag, words, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(words)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const visible = browser?.visible ?? ((text) => text);
  const shortened = browser?.shortened ?? ((text) => text);
  const name = ({ adapter, site }) => visible(`${shortened(adapter)} · ${site}`);
  const chosen = (side) => Number(at(side).value);

  function apart(left, right) {
    if (!left || !right || [left, right].some((c) => c.low === null || c.high === null)) return "";
    if (left.low > right.high) return "left higher";
    return left.high < right.low ? "right higher" : "touch";
  }

  function numberCell(cell) {
    if (!cell) return make("td", {}, "–");
    const under = [cell.interval, cell.chance && `chance ${cell.chance}`].filter(Boolean).join(" · ");
    return make("td", {}, make("b", {}, cell.value), make("small", {}, under));
  }

  function drawNumbers() {
    const [left, right] = [chosen("left"), chosen("right")];
    const head = make(
      "tr",
      {},
      make("th", { scope: "col" }, "Number"),
      make("th", { scope: "col" }, name(data.conditions[left])),
      make("th", { scope: "col" }, name(data.conditions[right])),
      make("th", { scope: "col" }, "Intervals")
    );
    const rows = data.rows
      .filter((row) => row.cells[left] || row.cells[right])
      .map((row) => {
        const under = [row.dictionary, row.unit].filter(Boolean).join(" · ");
        const title = make("th", { scope: "row" }, `${row.title} `, make("small", {}, under));
        const sides = [left, right].map((side) => numberCell(row.cells[side]));
        return make("tr", {}, title, ...sides, make("td", {}, apart(row.cells[left], row.cells[right])));
      });
    at("numbers").tHead.replaceChildren(head);
    at("numbers").tBodies[0].replaceChildren(...rows);
  }

  // Rows of the strongest latents of one side, each with its nearest on the other.
  function pairs(one, other, side) {
    return one.details.slice(0, MOST).map((record, index) => {
      const place = one.head.near.findIndex(
        ({ site, adapter }) => site === other.head.site && adapter === other.head.adapter
      );
      const [latent, cosine] = record.near?.[place] ?? [null, null];
      const there = latent === null ? -1 : other.columns.latent.indexOf(latent);
      const sign = cosine > one.head.near[place]?.chance.high ? "▲" : "=";
      const near = latent === null ? "" : `${sign} ${browser.number(cosine)}`;
      const cells = [browser.latent(one, index), near, latent === null ? "" : browser.button(other, latent)];
      const away = there < 0 ? "" : browser.tokens(other.columns.fires[there]);
      return [side, ...cells, away];
    });
  }

  function drawLatents() {
    if (!browser) return;
    const [left, right] = ["left", "right"].map((side) => browser.of(data.conditions[chosen(side)]));
    at("latents").hidden = !left || !right || left === right;
    if (at("latents").hidden) return;
    const known = left.head.near.some(
      ({ site, adapter }) => site === right.head.site && adapter === right.head.adapter
    );
    at("about").textContent = known
      ? "By what they write. ▲: nearer than 97.5 % of single random directions with the deltas' covariance."
      : "By what they write. Nearest latents are known for another adapter at the same site and for the same adapter at another site.";
    const heads = ["Of", "Latent", "Fires on", "Cosine of the nearest", "Nearest", "Fires on"];
    const rows = [...pairs(left, right, "left"), ...pairs(right, left, "right")].map((row) =>
      make("tr", {}, ...row.flatMap((cell) => (Array.isArray(cell) ? cell : [cell])).map((cell) => make("td", {}, cell)))
    );
    at("pairs").tHead.replaceChildren(make("tr", {}, ...heads.map((h) => make("th", { scope: "col" }, h))));
    at("pairs").tBodies[0].replaceChildren(...rows);
  }

  function draw() {
    drawNumbers();
    drawLatents();
  }

  for (const side of ["left", "right"]) {
    data.conditions.forEach((condition, i) => at(side).append(make("option", { value: i }, name(condition))));
    at(side).addEventListener("change", draw);
  }
  at("left").value = "0";
  at("right").value = "1";
  draw();
})();
