"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // ---- tables: a click or Enter on a header sorts; empty cells stay last
  const valueOf = (cell) => {
    if (!cell || cell.textContent === "") return null;
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), undefined, { numeric: true });
  const sortBy = (header) => {
    const table = header.closest("table"), column = header.cellIndex, body = table.tBodies[0];
    const first = header.classList.contains("n") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    all("th[aria-sort]", table.tHead).forEach((each) => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", order);
    const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
    const last = ([value]) => value === null || Number.isNaN(value);
    rows.sort((a, b) => last(a) - last(b) || (last(a) ? 0 : sign * compare(a[0], b[0])));
    body.append(...rows.map(([, row]) => row));
  };
  all("thead th button").forEach((button) =>
    button.addEventListener("click", () => sortBy(button.closest("th"))));

  // ---- charts: the legend shows, hides and highlights series
  all(".figures").forEach((figures) => {
    const buttons = all(".legend button", figures);
    const seriesOf = (button) => all(`.series[data-series="${button.dataset.series}"]`, figures);
    const show = (button) => seriesOf(button).forEach((series) =>
      series.classList.toggle("off", button.getAttribute("aria-pressed") !== "true"));
    const highlight = (button, on) => {
      figures.classList.toggle("dim", on);
      seriesOf(button).forEach((series) => series.classList.toggle("on", on));
    };
    buttons.forEach((button) => {
      show(button);
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        show(button);
      });
      for (const [event, on] of [["pointerenter", true], ["pointerleave", false], ["focus", true], ["blur", false]])
        button.addEventListener(event, () => highlight(button, on));
    });
  });

  // ---- predictions of two runs side by side
  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const LONGEST = 400; // words; beyond, a difference takes too long

  /** Return for each text its words, and whether the other text lacks them (longest common subsequence). */
  const wordDifferences = (first, second) => {
    const [a, b] = [first, second].map((text) => text.split(/(?<=\s)(?=\S)/));
    if (a.length > LONGEST || b.length > LONGEST) return [[[first, false]], [[second, false]]];
    const plain = [a, b].map((words) => words.map((word) => word.trim()));
    const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        common[i][j] = plain[0][i] === plain[1][j]
          ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
    const left = [], right = [];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && plain[0][i] === plain[1][j]) {
        left.push([a[i++], false]);
        right.push([b[j++], false]);
      } else if (j >= b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) left.push([a[i++], true]);
      else right.push([b[j++], true]);
    }
    return [left, right];
  };
  const marked = (words, side) => words.map(([word, alone]) => {
    if (!alone || !word.trim()) return word;
    const end = word.trimEnd().length;
    return make("span", {}, make("mark", { className: side }, word.slice(0, end)), word.slice(end));
  });

  const FILTERS = {
    "all examples": () => true,
    "predictions differ": (a, b, n) => a.predictions[n] !== b.predictions[n],
    "A is better": (a, b, n, sign) => sign * a.scores[n] > sign * b.scores[n],
    "B is better": (a, b, n, sign) => sign * a.scores[n] < sign * b.scores[n],
  };
  const signOf = (data) => (data.lower ? -1 : 1);
  const PAGE = 10;

  const buildViewer = (root, groups) => {
    const select = (name, options) => {
      const box = make("select", {}, ...options.map((text, value) => make("option", { value, textContent: text })));
      box.addEventListener("change", () => (name === "Runs of" ? chooseGroup() : choose()));
      return [box, make("label", {}, name, box)];
    };
    const [group, groupLabel] = select("Runs of", groups.map((each) => each.title));
    const [first, firstLabel] = select("Run A", []);
    const [second, secondLabel] = select("Run B", []);
    const [filter, filterLabel] = select("Show", Object.keys(FILTERS));
    filter.value = 1;
    const summary = make("p", { className: "lead" });
    summary.setAttribute("aria-live", "polite");
    const settings = make("div"), examples = make("div");
    const back = make("button", { type: "button", textContent: "Previous" });
    const on = make("button", { type: "button", textContent: "Next" });
    const place = make("span", { className: "lead" });
    let page = 0;

    const chosen = () => {
      const data = groups[group.value];
      return [data, data.runs[first.value], data.runs[second.value]];
    };
    const chooseGroup = () => {
      const runs = groups[group.value].runs;
      for (const [box, index] of [[first, 0], [second, Math.max(0, runs.findIndex((run) => run.cell !== runs[0].cell))]]) {
        box.replaceChildren(...runs.map((run, value) => make("option", {
          value, textContent: `${run.label}${run.score === null ? "" : `: ${run.score.toFixed(2)}`}` })));
        box.value = index;
      }
      choose();
    };
    const choose = () => { page = 0; show(); };
    const show = () => {
      const [data, a, b] = chosen();
      const numbers = [...data.examples.keys()];
      const sign = signOf(data);
      const kept = numbers.filter((n) => Object.values(FILTERS)[filter.value](a, b, n, sign));
      const count = (name) => numbers.filter((n) => FILTERS[name](a, b, n, sign)).length;
      summary.textContent = `Of ${numbers.length} examples here, A is better on ${count("A is better")} and ` +
        `B on ${count("B is better")}; the predictions differ on ${count("predictions differ")}.`;
      settings.replaceChildren(...settingsTable(a, b));
      const pages = Math.max(1, Math.ceil(kept.length / PAGE));
      page = Math.min(Math.max(page, 0), pages - 1);
      examples.replaceChildren(...kept.slice(page * PAGE, (page + 1) * PAGE).map((n) => example(data, a, b, n)));
      place.textContent = kept.length ? `page ${page + 1} of ${pages}` : "no such example";
      back.disabled = page === 0;
      on.disabled = page >= pages - 1;
    };
    const turn = (step) => { page += step; show(); };
    back.addEventListener("click", () => turn(-1));
    on.addEventListener("click", () => turn(1));
    root.className = "viewer";
    root.replaceChildren(make("div", { className: "choices" }, groupLabel, firstLabel, secondLabel, filterLabel),
      summary, settings, examples, make("div", { className: "pager" }, back, place, on));
    chooseGroup();
  };

  const settingsTable = (a, b) => {
    const keys = [...new Set([...Object.keys(a.config), ...Object.keys(b.config)])]
      .filter((key) => a.config[key] !== b.config[key]);
    if (!keys.length) return [];
    const row = (tag, ...texts) => make("tr", {}, ...texts.map((textContent, place) =>
      make(place ? tag : "th", { textContent: textContent ?? "" })));
    const table = make("table", {}, make("thead", {}, row("th", "setting", "A", "B")),
      make("tbody", {}, ...keys.map((key) => row("td", key, a.config[key], b.config[key]))));
    const box = make("div", { className: "scroll", tabIndex: 0 }, table);
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Settings that differ between A and B");
    return [make("details", {}, make("summary", { textContent: keys.length === 1 ? "1 setting differs" : `${keys.length} settings differ` }), box)];
  };
  const scoreOf = (data, run, n) => {
    const score = run.scores[n];
    if (score === null) return "";
    const [best, worst] = data.lower ? [0, null] : [100, 0];
    const label = score === best ? "right" : score === worst ? "wrong" : "";
    return make("span", { className: label }, score.toFixed(2));
  };
  const example = (data, a, b, n) => {
    const [id, reference] = data.examples[n];
    const words = wordDifferences(a.predictions[n], b.predictions[n]);
    const sides = [["A", a, "a"], ["B", b, "b"]].map(([name, run, side], place) =>
      make("div", {}, make("span", { className: "tag" }, `${name} `, scoreOf(data, run, n)), ...marked(words[place], side)));
    return make("article", { className: "example" },
      make("p", {}, make("span", { className: "tag", textContent: `example ${id}, reference` }), reference),
      make("div", { className: "pair" }, ...sides));
  };

  const groups = JSON.parse(document.getElementById("payload").textContent);
  const root = document.getElementById("viewer");
  if (root && groups.length) buildViewer(root, groups);
})();
