// Applies the stored theme before the first paint. The switch is in page.js.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  } catch { /* storage is forbidden: use the system's theme */ }
})();
