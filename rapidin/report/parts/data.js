// What is shown: embedded in the page, or fetched.
//
// sample: { id, text, split: where the response begins, own: [start, end] of the prompt's own part,
//           metadata: [[name, value]], file, row, tokens, targets, truncated }
// query:  { generation, prompt, own, spans, words: [[start, end, [token]]], rows: row of matrices per token,
//           influences: per row, proponents: [sample], opponents: [sample],
//           byToken: per token [[sample, score, influences on it or null]], or null,
//           details: { sample: { rank, estimate, exact, parts: [[start, end]], influences, matrix } } }
// All offsets count UTF-16 units.

/** A matrix of 32-bit numbers from base64: rows of the generation's tokens, one after the other. */
function unpack(packed) {
  const characters = atob(packed);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = characters.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** A query as it was written, made ready to be shown. */
function readQuery(query) {
  query.details = new Map(Object.entries(query.details).map(([sample, detail]) => [Number(sample), detail]));
  for (const detail of query.details.values()) {
    detail.matrix = detail.matrix === null ? null : unpack(detail.matrix);
  }
  query.hasMatrix = [...query.details.values()].some((detail) => detail.matrix !== null);
  query.selectable = query.words.length > 0 && (query.byToken !== null || query.hasMatrix);
  return query;
}
