// What is asked, as the fragment of an address: the part behind # that browsers send to nobody.

const DEFAULT_K = 10;

/** A request as a fragment. What is as it would be without is left out. */
function fragmentOf(asked) {
  const values = new URLSearchParams({ prompt: asked.prompt });
  if (asked.generation) values.set("generation", asked.generation);
  values.set("k", asked.k);
  if (!asked.opponents) values.set("opponents", "no");
  if (!asked.by_token) values.set("by_token", "no");
  for (const condition of asked.where) values.append("where", condition);
  for (const span of asked.spans) values.append("span", span);
  if (asked.matrices) values.set("matrices", "yes");
  if (asked.exact_curvature) values.set("exact_curvature", "yes");
  if (asked.rerank !== undefined) values.set("rerank", asked.rerank);
  if (asked.max_new_tokens !== undefined) values.set("new", asked.max_new_tokens);
  if (asked.index !== "auto") values.set("index", asked.index);
  return `#${values}`;
}

/** The request of a fragment; null: there is none in it. */
function requestOf(fragment) {
  const values = new URLSearchParams(fragment.replace(/^#/, ""));
  if (!values.has("prompt")) return null;
  const number = (name) => (/^\d{1,9}$/.test(values.get(name) ?? "") ? Number(values.get(name)) : undefined);
  return {
    prompt: values.get("prompt"),
    generation: values.get("generation") ?? "",
    k: number("k") ?? DEFAULT_K,
    opponents: values.get("opponents") !== "no",
    by_token: values.get("by_token") !== "no",
    matrices: values.get("matrices") === "yes",
    exact_curvature: values.get("exact_curvature") === "yes",
    where: values.getAll("where"),
    spans: values.getAll("span"),
    rerank: number("rerank"),
    max_new_tokens: number("new"),
    index: ["exact", "ivf", "rabitq"].find((name) => name === values.get("index")) ?? "auto",
  };
}
