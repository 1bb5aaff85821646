// Light or dark colours: the system's choice is taken before anything is drawn, and the button overrides it.
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
