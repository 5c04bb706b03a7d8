// Shows one image after the other and sends the decisions. Keys: Space keeps, Delete leaves out, Backspace undoes;
// digits choose a class, or where there are more classes than digits letters filter their names.
"use strict";

const review = document.getElementById("review");

if (review) {
  const at = (id) => document.getElementById(id);
  const vocab = JSON.parse(review.dataset.vocab);
  const leftOut = Number(review.dataset.leftOut);
  const keyed = Boolean(review.dataset.keyed);
  const shownClasses = 30; // of many; the filter finds the others
  const [status, progress, filter, list] = [at("review-status"), at("review-progress"), at("filter"), at("classes")];
  let image = null; // the one that is shown
  let ready = false; // the image can be seen and nothing is being sent: no decision on what was not seen
  const percent = (fraction) => `${(100 * fraction).toFixed(1)}\u00a0%`;
  const named = (text) => (text || "").normalize("NFC").toLocaleLowerCase();

  const say = (text, busy = false) => {
    status.textContent = text;
    status.classList.toggle("busy", busy);
  };

  const ask = async (path, body) => {
    const request = body && {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Review-Token": review.dataset.token, "X-Part": "1" },
      body: JSON.stringify({ ...body, split: at("split").value }),
    };
    let response;
    try {
      response = await fetch(path, request || { headers: { "X-Part": "1" } });
    } catch {
      throw new Error("The server did not answer. Is it still running?");
    }
    const text = await response.text();
    if (response.ok) return JSON.parse(text);
    if ((response.headers.get("content-type") || "").includes("json")) throw new Error(JSON.parse(text).problem);
    const template = document.createElement("template");
    template.innerHTML = text; // from the server, which escapes names
    throw new Error(template.content.querySelector(".summary")?.textContent || text);
  };

  // ---------------------------------------------------------------- what is shown

  const show = (state) => {
    progress.hidden = state.state === "problem";
    if (state.state === "problem") {
      say("");
      const card = document.createElement("div");
      card.className = "card bad";
      card.append(Object.assign(document.createElement("p"), { textContent: state.text }));
      review.hidden = true;
      review.before(card);
      return;
    }
    [progress.max, progress.value] = [state.total || 1, state.done];
    if (state.state === "working") {
      say(state.total ? `Predicting all ${state.total} images, ${state.done} done …` : "Opening the dataset …", true);
      setTimeout(load, 400);
      return;
    }
    say("");
    const changed = [`${state.relabelled} relabelled`, `${state.left_out} left out`];
    at("count").textContent = `${state.done} of ${state.total} reviewed; ${changed.join(", ")}`;
    at("undo").hidden = !state.can_undo;
    at("saved").hidden = !state.table;
    at("table").textContent = state.table || "";
    at("data").textContent = state.data || "";
    if (at("split").options.length === 1 && state.splits.length > 1)
      for (const name of state.splits) at("split").append(new Option(`${name} images`, name));
    review.hidden = false;
    image = state.image;
    at("question").classList.toggle("done", !image);
    at("end").hidden = Boolean(image);
    if (image) showImage();
    else at("end").textContent = "All of them are reviewed.";
    for (const row of pictures.keys()) if (row !== image?.row) pictures.delete(row);
    if (state.next !== null) picture(state.next); // so that it is there at once
  };

  const pictures = new Map(); // row → its image, loaded or loading
  const picture = (row) => {
    if (!pictures.has(row)) pictures.set(row, Object.assign(new Image(), { src: `/review/original/${row}` }));
    return pictures.get(row);
  };

  const showImage = () => {
    const [row, shown] = [image.row, picture(image.row)];
    ready = false;
    shown.alt = `${image.file}, labelled ${vocab[image.label]}`;
    at("stage").replaceChildren(shown);
    shown
      .decode()
      .catch(() => at("stage").replaceChildren("This image cannot be shown."))
      .finally(() => (ready ||= image?.row === row));
    at("seen").src = `/review/seen/${image.row}`;
    at("file").textContent = `${image.file} (${image.split})`;
    at("file").title = image.file;
    at("label").textContent = `${vocab[image.label]} ${percent(image.probability)}`;
    const [best, probability] = image.predictions[0];
    at("prediction").textContent = `${vocab[best]} ${percent(probability)}`;
    if (filter) filter.value = "";
    showClasses();
    say(`${image.file}: label ${vocab[image.label]}, prediction ${vocab[best]} ${percent(probability)}.`);
  };

  // The most probable first where there are many; with a digit each they keep their places.
  const offered = () => {
    const all = vocab.map((_, i) => i);
    if (keyed) return all;
    const likely = image.predictions.map(([i]) => i);
    const words = named(filter.value);
    const found = [...likely, ...all.filter((i) => !likely.includes(i))].filter((i) => named(vocab[i]).includes(words));
    return words ? found.sort((a, b) => named(vocab[b]).startsWith(words) - named(vocab[a]).startsWith(words)) : found;
  };

  const showClasses = () => {
    const probabilities = new Map(image.predictions);
    const found = offered();
    const items = found.slice(0, shownClasses).map((i, place) => {
      const [item, button] = [document.createElement("li"), document.createElement("button")];
      button.type = "button";
      button.dataset.class = i;
      if (keyed) {
        const key = document.createElement("kbd");
        key.textContent = (i + 1) % 10;
        button.append(key);
      }
      button.append(vocab[i]);
      if (probabilities.has(i)) {
        const share = document.createElement("span");
        share.className = "probability";
        share.textContent = percent(probabilities.get(i));
        button.append(share);
      }
      if (i === image.label) button.setAttribute("aria-current", "true");
      button.classList.toggle("first", !keyed && place === 0 && document.activeElement === filter);
      button.classList.toggle("chosen", i === image.answer);
      item.append(button);
      return item;
    });
    list.replaceChildren(...items);
    const more = found.length - items.length;
    at("more").textContent = !found.length ? "No class is called so." : more > 0 ? `${more} more: type a part of the name.` : "";
  };

  // ---------------------------------------------------------------- decisions

  const send = async (path, body) => {
    if (!ready) return;
    ready = false;
    try {
      show(await ask(path, body));
    } catch (error) {
      say(error.message);
      status.classList.add("failed");
      ready = true;
      return;
    }
    status.classList.remove("failed");
    if (document.activeElement === filter || !document.activeElement?.isConnected) document.activeElement?.blur();
  };
  const decide = (label) => image && send("/review/answer", { row: image.row, answer: label });
  const undo = () => {
    if (at("undo").hidden) return;
    ready ||= !image; // at the end there is none to wait for
    send("/review/undo", {});
  };

  const clicked = (element, action) =>
    element.addEventListener("click", (event) => {
      // After the mouse Space is for the next image again; with Tab the focus stays where it is.
      if (event.detail) document.activeElement?.blur();
      action(event);
    });
  clicked(at("keep"), () => decide(image.label));
  clicked(at("leave-out"), () => decide(leftOut));
  clicked(at("undo"), undo);
  clicked(list, (event) => {
    const chosen = event.target.closest("button");
    if (chosen) decide(Number(chosen.dataset.class));
  });

  const load = async () => {
    try {
      show(await ask(`/review/state?split=${at("split").value}`));
    } catch (error) {
      say(error.message);
    }
  };
  at("split").addEventListener("change", () => {
    at("split").blur();
    load();
  });

  // ---------------------------------------------------------------- keys

  const move = (event, by) => {
    const buttons = [...list.querySelectorAll("button")];
    const next = buttons.indexOf(document.activeElement) + by;
    event.preventDefault();
    (next < 0 ? filter : buttons[Math.min(next, buttons.length - 1)])?.focus();
  };

  const filterKey = (event) => {
    if (event.key === "Enter") list.querySelector("button")?.click();
    else if (event.key === "Escape") {
      filter.value = "";
      filter.blur();
    } else if (event.key === "ArrowDown") move(event, 1);
  };

  if (filter) {
    filter.addEventListener("input", showClasses);
    for (const event of ["focus", "blur"]) filter.addEventListener(event, () => image && showClasses());
    list.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") move(event, 1);
      else if (event.key === "ArrowUp") move(event, -1);
    });
  }

  document.addEventListener("keydown", (event) => {
    if (review.hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const focused = document.activeElement;
    if (focused === filter && filter) return filterKey(event);
    if (focused?.matches("select, input")) return;
    const onControl = focused?.matches("button, a"); // which has Space and Enter for itself
    if (event.key === "Backspace") undo();
    else if (!image) return;
    else if (event.key === "Delete") decide(leftOut);
    else if (event.key === " " && !onControl) decide(image.label);
    else if (keyed && /^\d$/.test(event.key)) {
      const chosen = (Number(event.key) + 9) % 10;
      if (chosen >= vocab.length) return;
      decide(chosen);
    } else if (!keyed && (event.key === "Enter" ? !onControl : event.key.length === 1 && event.key !== " ")) {
      filter.focus(); // the letter is then typed into it
      return event.key === "Enter" && event.preventDefault();
    } else return;
    event.preventDefault();
  });

  load();
}
