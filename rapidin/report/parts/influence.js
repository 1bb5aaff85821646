// Sums of influences over what the reader points at. This file knows no elements of the page.

/**
 * List the tokens of some words.
 *
 * @param {Query} query
 * @param {number[]} words numbers of words
 * @returns {number[]} numbers of tokens
 */
const tokensOf = (query, words) => [...words].flatMap((word) => query.words[word][2]);

/**
 * Add up the influences of each part of a sample on some tokens of the generation.
 *
 * @param {Query} query
 * @param {number} sample the sample's number
 * @param {number[]} tokens numbers of tokens
 * @returns {number[]|null} sums by part; null if they are not known
 */
function influencesOn(query, sample, tokens) {
  const detail = query.details.get(sample);
  if (detail.matrix !== null) {
    const width = detail.parts.length;
    const sums = new Array(width).fill(0);
    for (const token of tokens) {
      const row = query.rows[token];
      if (row === null) continue;
      for (let i = 0; i < width; i += 1) sums[i] += detail.matrix[row * width + i];
    }
    return sums;
  }
  const known = (query.byToken === null ? [] : tokens.flatMap((token) => query.byToken[token]))
    .filter((entry) => entry[0] === sample && entry[2] !== null);
  return known.length === 0 ? null : detail.parts.map((_, i) => known.reduce((sum, entry) => sum + entry[2][i], 0));
}

/**
 * Add up one column of a sample's matrix by words of the generation.
 *
 * @param {Query} query
 * @param {number} sample the sample's number
 * @param {number} part number of the column: one token of the sample
 * @returns {number[]} influence of the token, by word
 */
function influencesOfToken(query, sample, part) {
  const { matrix, parts } = query.details.get(sample);
  return query.words.map(([, , tokens]) => tokens
    .filter((token) => query.rows[token] !== null)
    .reduce((sum, token) => sum + matrix[query.rows[token] * parts.length + part], 0));
}

/**
 * Add up the shown proponents' influences on each word.
 *
 * @param {Query} query
 * @returns {number[]|null} sums by word; null if no influences were computed
 */
function influencesOnWords(query) {
  if (query.influences.length === 0) return null;
  return query.words.map(([, , tokens]) => tokens
    .filter((token) => query.rows[token] !== null)
    .reduce((sum, token) => sum + query.influences[query.rows[token]], 0));
}

/**
 * Find the samples behind some tokens of the generation, and the samples that speak against these tokens.
 *
 * A view's `estimate` is the sum of the sample's scores over tokens (Eq. 7), which are known for `found` tokens. Its
 * `exact` is the sum of the matrix's rows (Eq. 8). If both are known, the exact one counts.
 *
 * @param {Query} query
 * @param {number[]} tokens numbers of tokens
 * @returns {{ proponents: View[], opponents: View[] }} the largest influence first, and the smallest first
 */
function samplesBehind(query, tokens) {
  const views = new Map();
  for (const [sample, detail] of query.details) {
    const exact = detail.matrix === null ? null : influencesOn(query, sample, tokens).reduce((a, b) => a + b, 0);
    views.set(sample, { sample, estimate: null, found: 0, of: tokens.length, exact });
  }
  for (const token of query.byToken === null ? [] : tokens) {
    for (const [sample, score] of query.byToken[token]) {
      const view = views.get(sample);
      view.estimate = (view.estimate ?? 0) + (score ?? 0);
      view.found += 1;
    }
  }
  const known = [...views.values()].filter((view) => view.exact !== null || view.estimate !== null);
  for (const view of known) {
    view.value = view.exact ?? view.estimate;
    view.influences = influencesOn(query, view.sample, tokens);
  }
  known.sort((a, b) => b.value - a.value);
  return {
    proponents: known.filter((view) => !(view.value < 0)),
    opponents: known.filter((view) => view.value < 0).reverse(),
  };
}

/**
 * List the samples of the whole generation, in the order in which they were found.
 *
 * @param {Query} query
 * @returns {{ proponents: View[], opponents: View[] }}
 */
function samplesOfAll(query) {
  const view = (sample) => {
    const detail = query.details.get(sample);
    return {
      sample,
      estimate: detail.estimate,
      exact: detail.exact,
      value: detail.exact ?? detail.estimate,
      influences: detail.influences.length === 0 ? null : detail.influences,
    };
  };
  return { proponents: query.proponents.map(view), opponents: query.opponents.map(view) };
}
