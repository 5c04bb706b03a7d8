// Sends images that are chosen, dropped or pasted, a few in each request, and adds the results to the page; then asks
// for their Grad-CAM maps, which take longer.
// Without this file the form still works: its button sends it.
"use strict";

const form = document.getElementById("form");
document.documentElement.classList.add("js");

if (form) {
  const input = document.getElementById("images");
  const status = document.getElementById("status");
  const results = document.getElementById("results");
  const imageBytes = Number(form.dataset.imageBytes);
  const requestImages = 8; // few, so that the first results are shown early
  const requestBytes = Number(form.dataset.requestBytes) / 2;
  const cam = document.getElementById("cam");
  const unexplained = []; // [results, files] of requests whose maps were not asked for yet
  let queue = Promise.resolve();
  let explaining = false;

  const say = (text, busy = false) => {
    status.textContent = text;
    status.classList.toggle("busy", busy);
  };

  // textContent, as the name of a file can hold HTML.
  const errorCard = (name, error) => {
    const item = document.createElement("li");
    item.className = "card bad";
    const [title, text] = [document.createElement("h2"), document.createElement("p")];
    title.className = "file";
    title.textContent = name;
    text.textContent = `It ${error}.`;
    item.append(title, text);
    return item;
  };

  const batches = (files) => {
    const all = [];
    let size = Infinity;
    for (const file of files) {
      const last = all.at(-1);
      if (last && last.length < requestImages && size + file.size <= requestBytes) {
        last.push(file);
        size += file.size;
      } else {
        all.push([file]);
        size = file.size;
      }
    }
    return all;
  };

  // The element that the server answers with.
  const post = async (address, files) => {
    const body = new FormData();
    for (const file of files) body.append("images", file, file.name || "pasted.png");
    const response = await fetch(address, { method: "POST", body, headers: { "X-Part": "1" } });
    const text = await response.text();
    if (!(response.headers.get("content-type") || "").startsWith("text/html")) throw new Error(text);
    const template = document.createElement("template");
    template.innerHTML = text; // from the server, which escapes names
    return template.content.firstElementChild;
  };

  const send = async (files) => {
    const part = await post(form.action, files);
    const summary = part.querySelector(".summary").textContent;
    results.prepend(part);
    if (part.querySelector(".view")) unexplained.push([part, files]);
    explain();
    return summary;
  };

  const explain = async () => {
    if (explaining) return;
    explaining = true;
    while (cam.checked && unexplained.length) {
      const [part, files] = unexplained.shift();
      if (!part.isConnected) continue; // cleared
      try {
        const maps = [...(await post("/gradcam", files)).children];
        part.querySelectorAll(".cards > li").forEach((card, i) => {
          const map = maps[i] && maps[i].querySelector("img");
          if (map) card.querySelector(".view").append(map);
        });
      } catch {
        break; // the predictions are there; those of the next request come with their own
      }
    }
    explaining = false;
  };

  const classify = async (files) => {
    const large = files.filter((f) => f.size > imageBytes);
    const fitting = files.filter((f) => f.size <= imageBytes);
    const summaries = [];
    if (large.length) {
      const part = document.createElement("div");
      const list = document.createElement("ul");
      part.className = "results";
      list.className = "cards";
      list.append(...large.map((f) => errorCard(f.name, form.dataset.tooLarge)));
      part.append(list);
      results.prepend(part);
      summaries.push(`${large.map((f) => f.name).join(", ")}: too large`);
    }
    let done = 0;
    for (const batch of batches(fitting)) {
      say(fitting.length > 1 ? `Classifying ${fitting.length} images, ${done} done …` : "Classifying …", true);
      try {
        summaries.push(await send(batch));
      } catch {
        say("The server did not answer. Is it still running?");
        return;
      }
      done += batch.length;
    }
    say(summaries.length > 2 ? `${done} images classified.` : summaries.join(" "));
  };

  cam.addEventListener("change", explain);

  onImages(form, [input], say, (files) => {
    queue = queue.then(() => classify(files)); // one after the other
  });

  document.getElementById("clear").addEventListener("click", () => {
    results.replaceChildren();
    say("Cleared.");
    input.focus();
  });
}
