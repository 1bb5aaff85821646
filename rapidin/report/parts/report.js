// The state of the page: the query that is shown, and the words and the token that the reader points at.

/**
 * The parts of the page that cards and generation use.
 *
 * @typedef {object} Page
 * @property {Tooltip} tooltip
 * @property {(sample: number, parts: number[], element: HTMLElement) => void} pick is called when a token is clicked
 */

/** @type {Page} */
const page = { tooltip: makeTooltip(), pick: () => {} };
let shown = null;

/**
 * Shorten a text for a label.
 *
 * @param {string} text
 * @param {number} [most] maximum number of characters
 * @returns {string}
 */
const quoted = (text, most = 60) => (text.length > most ? `${text.slice(0, cut(text, 0, text.length, most))}…` : text);

/**
 * Write the selected words as they are in the text; dots separate words that are not neighbours.
 *
 * @param {Query} query
 * @param {number[]} words numbers of words in ascending order
 * @returns {string}
 */
function textOf(query, words) {
  return words.map((word, i) => {
    const [start, end] = query.words[word];
    const follows = i > 0 && words[i - 1] === word - 1;
    const before = follows ? query.generation.slice(query.words[word - 1][1], start) : i > 0 ? " … " : "";
    return before + query.generation.slice(start, end);
  }).join("").trim() || "end of the answer";
}

/**
 * Show one query, with nothing selected.
 *
 * @param {Query} query query from `readQuery`
 * @param {Sample[]} samples samples that the query names by number
 */
function showQuery(query, samples) {
  const lists = makeSampleLists(page, query, samples);
  page.tooltip.hide();
  let words = [];
  let picked = null;

  function update() {
    const selected = words.length > 0;
    const views = selected ? samplesBehind(query, tokensOf(query, words)) : samplesOfAll(query);
    lists.update(views, selected);
    generation.update(words, picked && { values: picked.values, label: picked.label });
    byId("selection").hidden = !selected;
    byId("whole").hidden = selected;
    byId("selected-words").textContent = selected ? quoted(textOf(query, words)) : "";
    byId("clear-pick").hidden = picked === null;
    page.tooltip.speakAgain();
  }
  function unpick() {
    if (picked) picked.element.classList.remove("picked");
    picked = null;
  }
  function choose(chosen) {
    words = [...chosen].sort((a, b) => a - b);
    update();
  }
  page.pick = (sample, parts, element) => {
    const again = picked !== null && picked.element === element;
    unpick();
    if (!again) {
      const columns = parts.map((part) => influencesOfToken(query, sample, part));
      const values = columns[0].map((_, word) => columns.reduce((sum, column) => sum + column[word], 0));
      picked = { element, values, label: quoted(element.textContent.trim() || element.getAttribute("aria-label"), 30) };
      element.classList.add("picked");
    }
    update();
    // If the page has one column, the words that light up may be far above.
    if (picked && matchMedia("(max-width: 52rem)").matches) byId("generation").scrollIntoView({ block: "nearest" });
  };
  const clear = () => { unpick(); choose([]); };

  const generation = makeGeneration(page, query, choose);
  shown = { query, clear, unpick: () => { unpick(); update(); }, choose, generation };
  describe(query);
  roving.begin();
  update();
}

/**
 * Show everything about a query that does not change with the selection.
 *
 * @param {Query} query
 */
function describe(query) {
  const [from, to] = query.own;
  const prompt = makeTextBlock("prompt", [from, cut(query.prompt, from, to, 600)], [0, query.prompt.length],
    (paragraph, a, b) => { paragraph.textContent = query.prompt.slice(a, b); });
  byId("prompt").replaceChildren(prompt);
  byId("answer-heading").textContent = query.generated ? "The model’s answer" : "Answer";
  const length = `${plural(query.targets, "target token")} of ${count(query.tokens)}${query.truncated ? ", truncated" : ""}`;
  const ways = [length, `searched: ${query.index}`, ...(query.explained ? [`influences of tokens: ${query.explained}`] : [])];
  byId("ways").replaceChildren(...ways.map((way) => make("li", "", {}, [way])),
    ...query.metadata.map(([name, value]) => make("li", "", {}, [isolated(clipped(name)), ": ", isolated(clipped(value))])));
  byId("asked").hidden = query.spans.length === 0;
  byId("hint").hidden = !query.selectable;
  byId("select-asked").hidden = !query.selectable;
  byId("selection-kind").textContent = query.byToken === null ? "These samples, ordered by influence on" : "Samples behind";
}

const roving = rove(byId("generation"), ".word", (word, event) => {
  if (event.shiftKey) shown.generation.extend(word);
  else shown.generation.anchorAt(word);
});
wireTabs();
byId("clear").addEventListener("click", () => shown.clear());
byId("clear-pick").addEventListener("click", () => shown.unpick());
byId("select-asked").addEventListener("click", () => {
  const { query } = shown;
  const asked = ([start, end]) => query.spans.some(([a, b]) => a < end && start < b);
  shown.choose(query.words.map((word, i) => (asked(word) ? i : -1)).filter((i) => i >= 0));
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && shown) shown.clear(); });
