// Before the first paint, so that nobody sees the wrong colours or the wrong language.
try {
  const { theme, lang } = JSON.parse(localStorage.getItem("tuwen") || "{}");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  document.documentElement.lang = lang === "en" || lang === "zh" ? lang : (navigator.language.startsWith("zh") ? "zh" : "en");
} catch {
  document.documentElement.lang = "en"; // storage may be forbidden; the page works without it
}
