// The theme that was chosen here before, set before the first paint. The switch itself is in page.js.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  } catch { /* storage may be forbidden; then the system's theme it is */ }
})();
