// The data that a page shows, which are embedded in it or fetched. All offsets count UTF-16 units.

/** @typedef {[number, number]} Span Begin and end of a part of a text; the end is the offset after its last unit. */

/**
 * A training sample. Queries name it by its number in the page's array of samples.
 *
 * @typedef {object} Sample
 * @property {string} id
 * @property {string} text prompt and response together
 * @property {number} split offset at which the response begins
 * @property {Span} own the prompt's own part, without the text of a template
 * @property {[string, string][]} metadata names and values
 * @property {string} file
 * @property {number} row
 * @property {number} tokens number of tokens
 * @property {number} targets number of target tokens
 * @property {boolean} truncated
 */

/**
 * What a query knows of a sample.
 *
 * @typedef {object} Detail
 * @property {number|null} rank rank in the sample's list for the whole generation; null if it is only in lists of tokens
 * @property {number|null} estimate
 * @property {number|null} exact
 * @property {Span[]} parts spans of the sample's tokens or words
 * @property {number[]} influences influence of each part on the generation; empty if not computed
 * @property {Float32Array|null} matrix influence of each part on each token of the generation, row by row
 */

/**
 * A query and what it found.
 *
 * @typedef {object} Query
 * @property {string} id
 * @property {string} prompt
 * @property {Span} own the prompt's own part
 * @property {string} generation
 * @property {boolean} generated whether the model wrote the generation in this search
 * @property {number} tokens number of tokens
 * @property {number} targets number of target tokens
 * @property {boolean} truncated
 * @property {[string, string][]} metadata names and values
 * @property {Span[]} spans parts of the generation that alone were asked about
 * @property {string} index how the vectors were searched
 * @property {string|null} explained how influences of tokens were computed
 * @property {[number, number, number[]][]} words begin, end and tokens of each word of the generation
 * @property {(number|null)[]} rows row of the matrices, by token
 * @property {number[]} influences sum of the shown proponents' influences, by row
 * @property {number[]} proponents numbers of samples
 * @property {number[]} opponents numbers of samples
 * @property {[number, number|null, number[]|null][][]|null} byToken for each token: a sample's number, its score, and
 *   the influences of its parts on the token
 * @property {Map<number, Detail>} details by the sample's number; an object until `readQuery` has read the query
 * @property {boolean} hasMatrix whether a sample has a matrix; set by `readQuery`
 * @property {boolean} selectable whether words can be selected; set by `readQuery`
 */

/**
 * A sample as a list shows it.
 *
 * @typedef {object} View
 * @property {number} sample the sample's number
 * @property {number|null} estimate
 * @property {number|null} exact
 * @property {number|null} value the number by which samples are ordered: `exact` if it is known, else `estimate`
 * @property {number[]|null} influences influence of each part of the sample; null if not known
 * @property {number} [found] in how many lists of selected tokens the sample is
 * @property {number} [of] number of selected tokens
 */

/**
 * Read a matrix of 32-bit numbers from base64: the rows of the generation's tokens, one after another.
 *
 * @param {string} packed
 * @returns {Float32Array}
 */
function unpack(packed) {
  const characters = atob(packed);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = characters.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/**
 * Make a query ready to be shown.
 *
 * @param {object} query a query as the page's data have it; it is changed
 * @returns {Query}
 */
function readQuery(query) {
  query.details = new Map(Object.entries(query.details).map(([sample, detail]) => [Number(sample), detail]));
  for (const detail of query.details.values()) {
    detail.matrix = detail.matrix === null ? null : unpack(detail.matrix);
  }
  query.hasMatrix = [...query.details.values()].some((detail) => detail.matrix !== null);
  query.selectable = query.words.length > 0 && (query.byToken !== null || query.hasMatrix);
  return query;
}
