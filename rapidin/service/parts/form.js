// The form: reading and filling it.

const linesIn = (id) => byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
const numberIn = (id) => (byId(id).value === "" ? undefined : Number(byId(id).value));

/** What the form asks for. */
function readForm() {
  return {
    prompt: byId("ask-prompt").value,
    generation: byId("ask-generation").value.trim() === "" ? null : byId("ask-generation").value,
    k: numberIn("ask-k") ?? DEFAULT_K,
    opponents: byId("ask-opponents").checked,
    by_token: byId("ask-tokens").checked,
    matrices: byId("ask-matrices").checked,
    exact_curvature: byId("ask-curvature").checked,
    where: linesIn("ask-where"),
    spans: linesIn("ask-spans"),
    rerank: numberIn("ask-rerank"),
    max_new_tokens: numberIn("ask-new"),
    index: byId("ask-index").value,
  };
}

/** Fill the form with a request of a link. */
function fillForm(asked) {
  byId("ask-prompt").value = asked.prompt;
  byId("ask-generation").value = asked.generation;
  byId("ask-k").value = asked.k;
  byId("ask-opponents").checked = asked.opponents;
  byId("ask-tokens").checked = asked.by_token;
  byId("ask-matrices").checked = asked.matrices;
  byId("ask-curvature").checked = asked.exact_curvature;
  byId("ask-where").value = asked.where.join("\n");
  byId("ask-spans").value = asked.spans.join("\n");
  byId("ask-rerank").value = asked.rerank ?? "";
  byId("ask-new").value = asked.max_new_tokens ?? "";
  byId("ask-index").value = asked.index;
  countOptions();
}

/** Say on the closed options how many of them are set. */
function countOptions() {
  const { where, spans, rerank, max_new_tokens: longest, index, matrices, exact_curvature: exact } = readForm();
  const others = [rerank !== undefined, longest !== undefined, index !== "auto", matrices, exact];
  const set = where.length + spans.length + others.filter(Boolean).length;
  byId("options-set").hidden = set === 0;
  byId("options-set").textContent = `${set} set`;
}

/** Let the form allow what the service does. */
function limitForm(limits) {
  byId("ask-prompt").maxLength = limits.characters;
  byId("ask-generation").maxLength = limits.characters;
  byId("ask-rerank").max = limits.rerank;
  byId("ask-new").max = limits.max_new_tokens;
  const limitK = () => { byId("ask-k").max = byId("ask-tokens").checked ? limits.token_k : limits.k; };
  byId("ask-tokens").addEventListener("change", limitK);
  limitK();
}
