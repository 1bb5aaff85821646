// One search at a time: asking, showing what comes, giving up.

let running = null;

const leaf = (path) => path.split("/").filter(Boolean).pop() ?? path;

/** What the head says of the store. */
function showStore(info) {
  const facts = [
    ["Store", leaf(info.path)], ["Samples", count(info.samples)], ["Model", leaf(info.model)],
    ...(info.adapter ? [["Adapter", leaf(info.adapter)]] : []),
    ["RapidGrads", `${count(info.projection_dim)} numbers of ${plural(info.bits, "bit")}`],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value]) => make("div", "", {}, [
    make("dt", "", {}, [name]), make("dd", "", {}, [isolated(value)]),
  ])));
  const fields = ["id", "prompt", "response", "text", "tokens", "file", "row"];
  byId("where-fields").textContent = [...info.metadata_fields, ...fields].join(", ");
}

function showError(error) {
  byId("error").hidden = error === null;
  byId("error").textContent = error === null ? "" : error.message;
  if (error?.status === 401) askForToken();
}

function askForToken() {
  byId("token-form").hidden = false;
  byId("token").focus();
}

function showProgress(text, done = 0, total = 0) {
  const bar = byId("progress-bar");
  if (total > 0) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  byId("progress-text").textContent = text;
}

const STEPS = { searching: "Searching", tokens: "Influences of words", "tokens on tokens": "Words on words" };

function showLine(line) {
  if (line.event === "waiting") {
    showProgress(`Waiting for ${plural(line.ahead, "other search", "other searches")}`);
  } else if (line.step === "searching") {
    showProgress(byId("ask-generation").value.trim() === "" ? "The model answers, and samples are searched" : "Searching");
  } else {
    const step = STEPS[line.step] ?? line.step.charAt(0).toUpperCase() + line.step.slice(1);
    showProgress(`${step}: ${count(line.done)} of ${count(line.total)}`, line.done, line.total);
  }
}

function setBusy(busy) {
  byId("search").disabled = busy;
  byId("cancel").hidden = !busy;
  byId("progress").hidden = !busy;
  byId("result").classList.toggle("old", busy);
  byId("ask").setAttribute("aria-busy", busy);
}

/** Search for what the form says. */
async function search() {
  running?.abort();
  const control = new AbortController();
  running = control;
  const asked = readForm();
  history.replaceState(null, "", fragmentOf(asked));
  showError(null);
  showProgress("Asking");
  setBusy(true);
  try {
    const { samples, query } = await fetchReport(asked, control.signal, showLine);
    if (running !== control) return;
    byId("result").hidden = false;
    showQuery(readQuery(query), samples);
    byId("result").focus({ preventScroll: true });
    byId("result").scrollIntoView({ block: "start", behavior: "instant" });
  } catch (error) {
    if (running === control && error.name !== "AbortError") showError(error);
  } finally {
    if (running === control) {
      running = null;
      setBusy(false);
    }
  }
}

/** Fetch what the page says of the store; false: a token is needed. */
async function greet() {
  try {
    const [info, limits] = await Promise.all([getJson("v1/info"), getJson("v1/limits")]);
    showStore(info);
    limitForm(limits);
    byId("token-form").hidden = true;
    return true;
  } catch (error) {
    if (error.status === 401 && !sessionStorage.getItem(TOKEN)) askForToken();
    else showError(error);
    return false;
  }
}

function followLink() {
  const asked = requestOf(location.hash);
  if (asked === null) return false;
  fillForm(asked);
  return true;
}

async function copyLink() {
  const link = new URL(fragmentOf(readForm()), location.href).href;
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    byId("copy").textContent = "Copied";
    setTimeout(() => { byId("copy").textContent = "Copy link"; }, 2000);
  } catch {
    byId("link-line").hidden = false; // not allowed to copy: the reader does it
    byId("link").value = link;
    byId("link").select();
  }
}

byId("ask").addEventListener("submit", (event) => { event.preventDefault(); search(); });
byId("ask").addEventListener("input", countOptions);
byId("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && running === null) byId("ask").requestSubmit();
});
byId("cancel").addEventListener("click", () => {
  running?.abort();
  running = null;
  setBusy(false);
  byId("search").focus();
});
byId("copy").addEventListener("click", copyLink);
byId("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value.trim());
  byId("token").value = "";
  showError(null);
  if (await greet()) byId("ask-prompt").focus();
  else sessionStorage.removeItem(TOKEN);
});
window.addEventListener("hashchange", () => { if (followLink()) search(); });

const linked = followLink();
greet().then((known) => { if (known && linked) search(); });
