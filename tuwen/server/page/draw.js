// Small pictures from a sentence.
import { html, useEffect, useState } from "./vendor/preact.js";
import { save, told, useApp } from "./app.js";
import { draw } from "./api.js";
import { Button, Choice, Spinner, Warnings } from "./parts.js";
import { go } from "./route.js";

/** What was drawn in this visit; it stays while one looks elsewhere. */
const drawn = { sets: [] };

export function Draw() {
  const { t, route, say, take } = useApp();
  const [prompt, type] = useState(route.prompt || "");
  const [n, many] = useState(4);
  const [busy, wait] = useState(false);
  const [error, fail] = useState(null);
  const [sets, keep] = useState(drawn.sets);
  useEffect(() => void (drawn.sets = sets), [sets]);
  const make = async (words) => {
    if (!words.trim() || busy) return;
    wait(true);
    fail(null);
    type(words);
    try {
      const again = sets.filter((one) => one.prompt === words.trim()).reduce((sum, one) => sum + one.pictures.length, 0);
      const made = await draw(words.trim(), n, again);
      keep((before) => [{ prompt: words.trim(), key: `${words} ${again} ${Date.now()}`, ...made }, ...before].slice(0, 20));
      say(t("found", { n: made.pictures.length }));
    } catch (problem) {
      fail(problem);
    }
    wait(false);
  };
  const find = async (png) => take(await asFile(png));
  return html`<section class="page draw" aria-labelledby="title">
    <h1 id="title">${t("draw_title")}</h1>
    <p class="lead">${t("draw_note")}</p>
    <form class="sheet" onSubmit=${(event) => { event.preventDefault(); make(prompt); }}>
      <label><span class="label">${t("draw_prompt")}</span>
        <textarea id="prompt" rows="2" maxlength="1000" value=${prompt} placeholder=${t("draw_hint")} onInput=${(event) => type(event.currentTarget.value)}
          onKeyDown=${(event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); make(prompt); } }}></textarea></label>
      <div class="line wrap"><${Choice} small label=${t("draw_many")} value=${n} set=${many} options=${[1, 4, 9].map((count) => [count, String(count)])} />
        <span class="space"></span>
        <button class="button main" disabled=${busy || !prompt.trim()}><span>${sets[0]?.prompt === prompt.trim() ? t("draw_again") : t("draw_button")}</span></button></div>
    </form>
    ${!sets.length && !busy && html`<ul class="tries" aria-label=${t("draw_try")}>
      ${[1, 2, 3].map((one) => html`<li key=${one}><button type="button" onClick=${() => make(t(`draw_${one}`))}>${t(`draw_${one}`)}</button></li>`)}</ul>`}
    ${busy && html`<${Spinner}>${t("drawing")}</${Spinner}>`}
    ${error && html`<p class="problem" role="alert">${told(t, error)}</p>`}
    ${sets.map((set) => html`<article key=${set.key} class="drawn">
      <h2>${set.prompt}</h2>
      <${Warnings} lines=${set.warnings} />
      <ul>${set.pictures.map((one) => html`<li key=${one.seed}>
        <img src=${one.png} alt=${t("draw_alt", { prompt: one.prompt })} width="192" height="192" />
        <div><small>${t("draw_seed", { seed: String(one.seed) })}</small>
          <${Button} icon="like" kind="plain" label=${t("draw_find")} onClick=${() => find(one.png)} />
          <${Button} icon="download" kind="plain" label=${t("draw_save")} onClick=${() => save(`drawing-${one.seed}.png`, one.png)} /></div></li>`)}</ul>
    </article>`)}
  </section>`;
}

/** A data URL as a file; decoded here, as the page may fetch from its own server alone. */
async function asFile(png) {
  const bytes = Uint8Array.from(atob(png.slice(png.indexOf(",") + 1)), (sign) => sign.charCodeAt(0));
  return new File([bytes], "drawing.png", { type: "image/png" });
}
