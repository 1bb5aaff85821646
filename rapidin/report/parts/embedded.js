// A report's own data, and the picker between its queries.

/**
 * Read data that are embedded in the page.
 *
 * @param {string} id id of the element that holds them
 * @returns {any}
 */
const embedded = (id) => JSON.parse(byId(id).textContent);
const samples = embedded("samples");
const picker = byId("query");
const queries = new Map();

/**
 * Show a query of the page; it is read when it is shown for the first time.
 *
 * @param {number} number
 */
function showEmbedded(number) {
  if (!queries.has(number)) queries.set(number, readQuery(embedded(`query-${number}`)));
  showQuery(queries.get(number), samples);
}

if (picker) {
  const step = (by) => () => {
    picker.selectedIndex = Math.min(Math.max(picker.selectedIndex + by, 0), picker.options.length - 1);
    picker.dispatchEvent(new Event("change"));
  };
  const previous = byId("previous");
  const next = byId("next");
  const follow = () => {
    previous.disabled = picker.selectedIndex === 0;
    next.disabled = picker.selectedIndex === picker.options.length - 1;
  };
  picker.addEventListener("change", () => { showEmbedded(picker.selectedIndex); follow(); });
  previous.addEventListener("click", step(-1));
  next.addEventListener("click", step(1));
  picker.selectedIndex = 0;
  follow();
}
showEmbedded(0);
