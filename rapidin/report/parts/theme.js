// The system's choice of light or dark before anything is drawn; the button overrules it.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = false;
  const apply = (isDark) => { root.dataset.theme = isDark ? "dark" : "light"; };

  apply(dark.matches);
  dark.addEventListener("change", () => { if (!chosen) apply(dark.matches); });
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      chosen = true;
      apply(root.dataset.theme !== "dark");
    });
  });
})();
