"use strict";

(() => {
  const PAGE = 50;
  const SITE = "https://www.neuronpedia.org/";
  const SYMBOLS = { above: "▲", within: "=", below: "▼" };
  const data = JSON.parse(document.getElementById("feature-data").textContent);
  const at = (name) => document.getElementById(`features-${name}`);
  // One state a dictionary: its columns and records, as far as they are loaded.
  const dictionaries = data.dictionaries.map((each, number) => ({ ...each, number }));
  const view = { dictionary: dictionaries[0], sort: "written", down: true, page: 0, order: [] };
  let open = null;

  // Everything shown goes through here: text is only ever text.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick") element.addEventListener("click", value);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const NAMED = { "\n": "↵", "\t": "⇥", "\r": "␍" };

  // Characters that show nothing, or turn the text around, by name.
  function visible(text) {
    const hex = (c, digits) => c.charCodeAt(0).toString(16).toUpperCase().padStart(digits, "0");
    const code = (c) => (c < "\u0100" ? `⟨0x${hex(c, 2)}⟩` : `⟨U+${hex(c, 4)}⟩`);
    return text.replace(HIDDEN, (c) => NAMED[c] ?? code(c));
  }

  // A path or id: its last parts, or its two ends.
  function shortened(text, most = 40) {
    if (text.length <= most) return text;
    const parts = text.split("/");
    for (let first = 1; first < parts.length; first += 1) {
      const tail = `…/${parts.slice(first).join("/")}`;
      if (tail.length <= most && parts[first]) return tail;
    }
    const front = Math.floor((most - 1) / 2);
    return `${text.slice(0, front)}…${text.slice(text.length - (most - 1 - front))}`;
  }

  // A token: with a ␣ for each space at its ends.
  function shownToken(text) {
    const signs = ({ length }) => (length > 3 ? `␣×${length}` : "␣".repeat(length));
    return visible(text).replace(/^ +| +$/g, signs) || "⟨empty⟩";
  }

  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    let text = "0";
    if (size >= 1000) text = Math.round(size).toLocaleString("en");
    else if (size >= 0.001) text = size.toPrecision(3);
    else if (size > 0) text = size.toExponential(1);
    return value < 0 ? `−${text}` : text;
  }

  const percent = (share) => (share === null ? "–" : `${number(100 * share)} %`);
  const chanceWords = (c) => `chance ${number(c.level)} [${number(c.low)}, ${number(c.high)}]`;
  const token = (text) => make("span", { class: "feature-token" }, shownToken(text));

  function tokens(list) {
    return list.flatMap((text, index) => (index ? [" ", token(text)] : [token(text)]));
  }

  // Files beside the page call this.
  const waiting = new Map();
  window.lorascopeFeatures = (name, content) => waiting.get(name)?.done(content);

  function load(name) {
    const before = waiting.get(name);
    if (before) return before.promise;
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.done = resolve;
      const failed = () => {
        waiting.delete(name);
        reject(new Error(name));
      };
      const script = document.createElement("script");
      script.src = `features/${name}.js`;
      script.addEventListener("error", failed);
      document.head.append(script);
    });
    waiting.set(name, entry);
    return entry.promise;
  }

  async function record(dictionary, index) {
    if (index < dictionary.details.length) return dictionary.details[index];
    const block = Math.floor(index / data.block);
    const name = `${dictionary.number}-${String(block).padStart(3, "0")}`;
    return (await load(name))[index - block * data.block];
  }

  async function wholeTable(dictionary) {
    if (dictionary.columns.latent.length === dictionary.total) return;
    try {
      dictionary.columns = await load(`${dictionary.number}-table`);
      dictionary.texts = null;
    } catch {
      dictionary.missing = true;
    }
  }

  function label(dictionary, index) {
    return dictionary.columns.label?.[index] ?? "";
  }

  // What a search looks through, one text a latent.
  function texts(dictionary) {
    const { latent, fires, promotes } = dictionary.columns;
    dictionary.texts ??= latent.map((name, index) =>
      [name, ...fires[index], ...promotes[index], label(dictionary, index)].join(" ").toLowerCase()
    );
    return dictionary.texts;
  }

  function ordered() {
    const { dictionary, sort, down } = view;
    const { columns } = dictionary;
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = at("verdict").value;
    const least = Number(at("density").value);
    const searched = words.length ? texts(dictionary) : [];
    const kept = [];
    for (let index = 0; index < columns.latent.length; index += 1) {
      if (verdict && columns.verdict[index] !== verdict) continue;
      if (columns.density[index] < least) continue;
      if (words.every((word) => searched[index].includes(word))) kept.push(index);
    }
    const key = sort === "label" ? columns.latent.map((_, i) => label(dictionary, i)) : columns[sort];
    const value = (index) => (Array.isArray(key[index]) ? key[index].join(" ") : key[index]);
    const empty = (v) => v === null || v === "";
    // What has no value stands last either way; equal values stay by what they write.
    return kept.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y) || a - b;
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1) || a - b;
    });
  }

  const COLUMNS = [
    ["latent", "Latent", "num"],
    ["fires", "Fires on", "feature-tokens"],
    ["promotes", "Promotes", "feature-tokens promotes"],
    ["density", "Density", "num"],
    ["written", "Writes", "num"],
    ["loss", "Loss if removed", "num"],
    ["attributed", "… to first order", "num"],
    ["cosine", "Max cosine", "num"],
    ["base", "Base latent", "num"],
    ["verdict", "Against chance", "verdict"],
    ["mean", "Mean", "num mean"],
    ["label", "Label of the base latent", "feature-label"],
  ];

  // Columns that a run may lack.
  const OPTIONAL = new Set(["label", "attributed"]);

  // A first-order effect against that of random directions of the same strength.
  function attributed(columns, index) {
    const [value, chance] = [columns.attributed[index], columns.attributed_chance[index]];
    if (value === null) return "–";
    const side = value > chance ? "▲" : value < -chance ? "▼" : "=";
    return `${side} ${value > 0 ? "+" : ""}${number(value)}`;
  }

  function baseLatent(dictionary, latent) {
    const id = dictionary.head.neuronpedia;
    if (!/^[\w.-]+\/[\w.-]+$/.test(id)) return String(latent);
    const href = `${SITE}${id}/${latent}`;
    return make("a", { href, target: "_blank", rel: "noopener noreferrer" }, String(latent));
  }

  function cell(dictionary, name, index) {
    const { columns } = dictionary;
    const value = columns[name]?.[index];
    if (name === "latent") {
      const words = { type: "button", "data-latent": value, onclick: () => show(dictionary, index) };
      return [make("button", words, String(value))];
    }
    if (name === "fires" || name === "promotes") return tokens(value);
    if (name === "density") return [percent(value)];
    if (name === "attributed") return [attributed(columns, index)];
    if (name === "base") return [baseLatent(dictionary, value)];
    if (name === "verdict") return [`${SYMBOLS[value]} ${value.split(" ")[0]}`];
    if (name === "label") return [visible(label(dictionary, index))];
    return [number(value)];
  }

  function shownColumns() {
    const { columns } = view.dictionary;
    return COLUMNS.filter(([name]) => !OPTIONAL.has(name) || columns[name]?.some((v) => v !== null));
  }

  function drawHeads() {
    const heads = shownColumns().map(([name, title, style]) => {
      const sorted = view.sort === name ? (view.down ? "descending" : "ascending") : null;
      const words = { type: "button", "data-sort": name, onclick: () => sortBy(name) };
      const arrow = sorted ? (view.down ? " ↓" : " ↑") : "";
      const button = make("button", words, title + arrow);
      return make("th", { scope: "col", class: style, "aria-sort": sorted }, button);
    });
    at("heads").replaceChildren(...heads);
  }

  function drawRows() {
    const { dictionary, order, page } = view;
    const shown = order.slice(page * PAGE, (page + 1) * PAGE);
    const rows = shown.map((index) => {
      const cells = shownColumns().map(([name, , style]) =>
        make("td", { class: style }, ...cell(dictionary, name, index))
      );
      const current = open?.dictionary === dictionary && open.index === index;
      return make("tr", { "aria-current": current ? "true" : null }, ...cells);
    });
    at("rows").replaceChildren(...rows);
    const pages = Math.max(1, Math.ceil(order.length / PAGE));
    at("page").textContent = `page ${page + 1} of ${pages}`;
    at("previous").disabled = page === 0;
    at("next").disabled = page + 1 >= pages;
  }

  function drawCount() {
    const { dictionary, order } = view;
    const here = dictionary.columns.latent.length;
    const some = dictionary.total > here ? `; of ${dictionary.total}, the ${here} that write most` : "";
    const away = dictionary.missing ? " (the folder features/ is not beside this page)" : "";
    at("count").textContent = `${order.length.toLocaleString("en")} latents shown${some}${away}`;
  }

  function drawAbout() {
    const { head, columns, total } = view.dictionary;
    const counts = (verdict) => columns.verdict.filter((v) => v === verdict).length;
    const expected = number(0.025 * columns.verdict.length);
    at("about").textContent =
      `${total} of ${head.n_latents} latents fire on ${head.rows.toLocaleString("en")} held-out ` +
      `tokens of ${head.documents} documents. Max cosine with ${head.base_latents} base latents: ` +
      `${chanceWords(head.chance)}; ${counts("above")} above and ` +
      `${counts("below")} below, ${expected} each by chance.`;
  }

  function draw(page = 0) {
    view.order = ordered();
    view.page = page;
    drawHeads();
    drawRows();
    drawCount();
  }

  function sortBy(name) {
    const texty = ["fires", "promotes", "verdict", "label", "latent", "base"].includes(name);
    view.down = view.sort === name ? !view.down : !texty;
    view.sort = name;
    draw();
    at("heads").querySelector(`[data-sort="${name}"]`).focus();
  }

  function title(dictionary) {
    const { adapter, site, seed } = dictionary.head;
    return visible(`${shortened(adapter)} · ${site} · seed ${seed}`);
  }

  // The address of a latent, `r32/layers.18/127`; `r32/layers.18/seed1/127` where other seeds come
  // first. Names of adapters may hold anything.
  function link(dictionary, latent) {
    const { adapter, site, seed } = dictionary.head;
    const first = dictionaries.find(({ head }) => head.adapter === adapter && head.site === site);
    const seeds = first === dictionary ? [] : [`seed${seed}`];
    return [adapter, site, ...seeds, latent].map(encodeURIComponent).join("/");
  }

  // The dictionary's number and the latent that an address names; null for none.
  function linked(hash) {
    const numbers = /^#latent-(\d+)-(\d+)$/.exec(hash);
    if (numbers) return [Number(numbers[1]), Number(numbers[2])];
    const parts = /^#([^/]+)\/([^/]+)\/(?:seed([^/]+)\/)?(\d+)$/.exec(hash);
    if (!parts) return null;
    let names;
    try {
      names = parts.slice(1, 4).map((text) => text && decodeURIComponent(text));
    } catch {
      return null;
    }
    const [adapter, site, seed] = names;
    const found = dictionaries.findIndex(
      ({ head }) =>
        head.adapter === adapter &&
        head.site === site &&
        (seed === undefined || String(head.seed) === seed)
    );
    return found < 0 ? null : [found, Number(parts[4])];
  }

  async function pick(dictionary) {
    view.dictionary = dictionary;
    at("dictionary").value = String(dictionary.number);
    drawAbout();
    draw();
    await wholeTable(dictionary);
    if (view.dictionary !== dictionary) return;
    drawAbout();
    draw();
    // Before somebody searches, so that the first answer is as quick as the next.
    setTimeout(() => texts(dictionary), 200);
  }

  async function goTo(number_, latent) {
    const dictionary = dictionaries[number_];
    if (!dictionary) return;
    for (const name of ["search", "verdict"]) at(name).value = "";
    at("density").value = "0";
    await pick(dictionary);
    const index = dictionary.columns.latent.indexOf(latent);
    if (index < 0) return;
    draw(Math.floor(view.order.indexOf(index) / PAGE));
    await show(dictionary, index);
  }

  async function show(dictionary, index) {
    open = { dictionary, index };
    drawRows();
    const latent = dictionary.columns.latent[index];
    const place = at("detail");
    place.hidden = false;
    const heading = make("h3", { tabindex: "-1" }, `Latent ${latent} of ${title(dictionary)}`);
    let body;
    try {
      const found = await record(dictionary, index);
      body = [...summary(dictionary, index, found), ...details(dictionary, found)];
    } catch {
      const away = "Its record is in the folder features/, which is not beside this page.";
      body = [...summary(dictionary, index, null), make("p", {}, away)];
    }
    if (open?.dictionary !== dictionary || open.index !== index) return;
    place.replaceChildren(heading, actions(), ...body);
    history.replaceState(null, "", `#${link(dictionary, latent)}`);
    heading.focus({ preventScroll: true });
    place.scrollIntoView({ block: "nearest" });
  }

  function close() {
    const latent = open?.dictionary.columns.latent[open.index];
    open = null;
    at("detail").hidden = true;
    drawRows();
    at("rows").querySelector(`[data-latent="${latent}"]`)?.focus();
  }

  function step(by) {
    const next = view.order.indexOf(open.index) + by;
    if (next < 0 || next >= view.order.length) return;
    view.page = Math.floor(next / PAGE);
    show(view.dictionary, view.order[next]);
  }

  function actions() {
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const buttons = [["← latent above", () => step(-1)], ["latent below →", () => step(1)]];
    const all = [...buttons, ["close (Esc)", close]].map((each) => button(...each));
    return make("div", { class: "feature-actions" }, ...all);
  }

  function bounds(pair, show) {
    return pair && pair[0] !== null ? ` [${show(pair[0])}, ${show(pair[1])}]` : "";
  }

  function summary(dictionary, index, record_) {
    const { columns, head } = dictionary;
    const value = (name) => number(columns[name][index]);
    const often = `${percent(columns.density[index])}${bounds(record_?.density, percent)}`;
    const random = record_ ? ` (${percent(record_.density_chance)} of norm-matched random vectors)` : "";
    const found = [
      make(
        "p",
        {},
        `Active on ${often} of tokens${random}, mean ${value("mean")}${bounds(record_?.mean, number)} ` +
          `where active, writing ${value("strength")} there. Max cosine ${value("cosine")} with base latent `,
        baseLatent(dictionary, columns.base[index]),
        `: ${SYMBOLS[columns.verdict[index]]} ${columns.verdict[index]}, ${chanceWords(head.chance)}.`
      ),
    ];
    const named = label(dictionary, index);
    if (named) found.push(make("p", {}, `That base latent's label: ${visible(named)}`));
    const removed =
      columns.loss[index] === null
        ? "Not among the latents that were removed one at a time."
        : `Removed from the adapted model: loss ${columns.loss[index] < 0 ? "" : "+"}${value("loss")} ` +
          `nats a token, KL ${value("kl")}; other directions of the same norm ${value("kl_other")}.`;
    found.push(make("p", {}, removed));
    if (columns.attributed && columns.attributed[index] !== null) {
      const chance = number(columns.attributed_chance[index]);
      const words = `To first order removing it changes the loss by ${attributed(columns, index)} nats a token`;
      found.push(make("p", {}, `${words}; 95 % of random directions written as strongly: ±${chance}.`));
    }
    return found;
  }

  const heading = (text) => make("h4", {}, text);

  function list(rows) {
    const cells = (row) => row.map((c, i) => make("td", { class: i ? "num" : null }, ...[c].flat()));
    const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row))));
    return make("table", { class: "feature-list" }, body);
  }

  function details(dictionary, found) {
    const { head } = dictionary;
    const effects = (pairs) => list(pairs.map(([text, size]) => [token(text), number(size)]));
    const kinds = head.kinds.map((name, i) => [
      visible(name),
      percent(found.kinds[i]),
      `of all tokens ${percent(head.kind_shares[i])}`,
    ]);
    return [
      heading("Passages"),
      ...found.examples.map(passage),
      make(
        "div",
        { class: "feature-columns" },
        make("div", {}, heading("Promoted tokens (z)"), effects(found.up)),
        make("div", {}, heading("Suppressed tokens (z)"), effects(found.down)),
        make("div", {}, heading("Activations (height: log of the count)"), ...histogram(found)),
        make("div", {}, heading("Kinds of text"), list(kinds)),
        built(dictionary, found),
        near(dictionary, found)
      ),
    ];
  }

  function passage(example) {
    const line = make("div", { class: "feature-passage" });
    line.append(make("small", {}, `${example.band} ${number(example.value)}`));
    example.tokens.forEach((text, i) => {
      const span = make("span", { class: i === example.at ? "at" : null }, visible(text));
      if (example.shades[i]) span.style.setProperty("--shade", String(example.shades[i] / 99));
      line.append(span);
    });
    return line;
  }

  function histogram(found) {
    const most = Math.log1p(Math.max(...found.histogram));
    const bars = found.histogram.map((count) => {
      const bar = make("i", { title: `${count} tokens` });
      bar.style.setProperty("--height", String(Math.log1p(count) / most));
      return bar;
    });
    const words = `activations from 0 to ${number(found.max)}: ${found.histogram.join(", ")} tokens`;
    return [
      make("div", { class: "feature-bars", role: "img", "aria-label": words }, ...bars),
      make("div", { class: "feature-ends" }, make("span", {}, "0"), make("span", {}, number(found.max))),
    ];
  }

  function built(dictionary, found) {
    if (!found.built) return null;
    const rows = found.built.map(([latent, weight, words]) => {
      const named = words ? ` ${visible(words)}` : "";
      return [[baseLatent(dictionary, latent), named], number(weight)];
    });
    const chance = dictionary.head.built_chance;
    const side = found.explained > chance.high ? "▲" : found.explained < chance.low ? "▼" : "=";
    const share = `${percent(found.explained)} of it explained: ${side}; `;
    const random = `random directions ${percent(chance.level)} [${percent(chance.low)}, ${percent(chance.high)}]`;
    return make("div", {}, heading("Built from base latents"), make("p", {}, share + random), list(rows));
  }

  function near(dictionary, found) {
    if (!found.near?.length) return null;
    const rows = found.near.map(([latent, cosine], i) => {
      const other = dictionary.head.near[i];
      const number_ = dictionaries.findIndex(
        ({ head }) => head.site === other.site && head.adapter === other.adapter
      );
      const words = visible(`${shortened(other.adapter)} · ${other.site} · ${latent}`);
      const onclick = () => goTo(number_, latent);
      const above = cosine > other.chance.high ? "▲ " : "= ";
      return [
        make("button", { type: "button", onclick }, words),
        above + number(cosine),
        `chance ≤ ${number(other.chance.high)}`,
      ];
    });
    return make("div", {}, heading("Nearest delta latents elsewhere (cosine)"), list(rows));
  }

  // Arrows walk through the latents of the table; Escape closes the one that is open.
  function key(event) {
    if (event.key === "Escape" && open) {
      close();
      event.preventDefault();
      return;
    }
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || !event.target.matches("[data-latent]")) return;
    const buttons = [...at("rows").querySelectorAll("[data-latent]")];
    buttons[buttons.indexOf(event.target) + by]?.focus();
    event.preventDefault();
  }

  for (const dictionary of dictionaries) {
    at("dictionary").append(make("option", { value: dictionary.number }, title(dictionary)));
  }
  at("dictionary").addEventListener("change", (event) => {
    at("detail").hidden = true;
    open = null;
    pick(dictionaries[Number(event.target.value)]);
  });
  at("search").addEventListener("input", () => draw());
  for (const name of ["verdict", "density"]) at(name).addEventListener("change", () => draw());
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("browser").addEventListener("keydown", key);

  function turn(by) {
    view.page += by;
    drawRows();
  }

  // What the side-by-side view shows of latents.
  window.lorascopeBrowser = {
    visible,
    shortened,
    number,
    of: ({ adapters, site }) =>
      dictionaries.find(({ head }) => head.site === site && adapters.includes(head.adapter)),
    tokens: (list) => make("span", {}, ...tokens(list)),
    button: (dictionary, latent) =>
      make("button", { type: "button", onclick: () => goTo(dictionary.number, latent) }, String(latent)),
    latent: (dictionary, index) => {
      const { latent, fires } = dictionary.columns;
      const onclick = () => goTo(dictionary.number, latent[index]);
      const button = make("button", { type: "button", onclick }, String(latent[index]));
      return [button, make("span", {}, ...tokens(fires[index]))];
    },
  };

  // "/" goes to the search from anywhere, Enter and the arrow down from there into the table.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    at("search").focus();
    at("search").select();
    at("search").scrollIntoView({ block: "center" });
  });
  at("search").addEventListener("keydown", (event) => {
    const first = at("rows").querySelector("[data-latent]");
    if (!first || !["Enter", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter") first.click();
    else first.focus();
  });
  window.addEventListener("hashchange", () => {
    const there = linked(location.hash);
    if (there) goTo(...there);
  });

  const asked = linked(location.hash);
  if (asked) goTo(...asked);
  else pick(dictionaries[0]);
})();
