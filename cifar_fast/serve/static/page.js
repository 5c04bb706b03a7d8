// Choosing, dropping or pasting images sends them, a few at a time, and puts the answers into the page.
// Without this file the form still works: the button sends it.
"use strict";

const form = document.getElementById("form");
document.documentElement.classList.add("js");

if (form) {
  const input = document.getElementById("images");
  const status = document.getElementById("status");
  const results = document.getElementById("results");
  const most = Number(form.dataset.most);
  const count = 8; // a request: answers come one after the other
  const together = Number(form.dataset.total) / 2;
  let queue = Promise.resolve();

  const say = (text, busy = false) => {
    status.textContent = text;
    status.classList.toggle("busy", busy);
  };

  // textContent everywhere: the name of a file is whatever somebody called it.
  const refusal = (name, reason) => {
    const item = document.createElement("li");
    item.className = "card bad";
    const [title, text] = [document.createElement("h2"), document.createElement("p")];
    title.className = "file";
    title.textContent = name;
    text.textContent = `It ${reason}.`;
    item.append(title, text);
    return item;
  };

  const show = (part) => results.prepend(part);

  const portions = (files) => {
    const all = [];
    let size = Infinity;
    for (const file of files) {
      const last = all.at(-1);
      if (last && last.length < count && size + file.size <= together) {
        last.push(file);
        size += file.size;
      } else {
        all.push([file]);
        size = file.size;
      }
    }
    return all;
  };

  const send = async (files) => {
    const body = new FormData();
    for (const file of files) body.append("images", file, file.name || "pasted.png");
    const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Part": "1" } });
    if (!(answer.headers.get("content-type") || "").startsWith("text/html")) throw new Error(await answer.text());
    const holder = document.createElement("template");
    holder.innerHTML = await answer.text(); // made by the server, which escapes names
    const part = holder.content.firstElementChild;
    const told = part.querySelector(".summary").textContent;
    show(part);
    return told;
  };

  const look = async (files) => {
    const large = files.filter((f) => f.size > most);
    const fitting = files.filter((f) => f.size <= most);
    const told = [];
    if (large.length) {
      const part = document.createElement("div");
      const list = document.createElement("ul");
      part.className = "found";
      list.className = "cards";
      list.append(...large.map((f) => refusal(f.name, form.dataset.tooLarge)));
      part.append(list);
      show(part);
      told.push(`${large.map((f) => f.name).join(", ")}: too large`);
    }
    let done = 0;
    for (const some of portions(fitting)) {
      say(fitting.length > 1 ? `Looking at ${fitting.length - done} of ${fitting.length} images …` : "Looking …", true);
      try {
        told.push(await send(some));
      } catch {
        told.push("The server did not answer. Is it still running?");
        break;
      }
      done += some.length;
    }
    say(told.length > 2 ? `${done} images looked at.` : told.join(" "));
  };

  const take = (files) => {
    if (files.length) queue = queue.then(() => look(files)); // one after the other, however fast they are given
  };

  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same image may be chosen again
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) say("There is no image in the clipboard.");
    take(files);
  });

  // On the whole page, or a drop beside the frame would leave the page for the image.
  let depth = 0;
  const over = (by) => {
    depth = Math.max(0, depth + by);
    form.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    const items = [...event.dataTransfer.items];
    if (items.some((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()?.isDirectory)) {
      say("A folder cannot be dropped here; choose or drop the images in it.");
      return;
    }
    take([...event.dataTransfer.files]);
  });

  document.getElementById("clear").addEventListener("click", () => {
    results.replaceChildren();
    say("Cleared.");
    input.focus();
  });
}
