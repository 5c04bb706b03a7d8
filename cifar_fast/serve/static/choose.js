// Images that are chosen, pasted or dropped, on the served page and in the exported HTML file.
"use strict";

// `take` gets the files; `say` tells what cannot be taken; `form` has the class "over" while files are over the page.
const onImages = (form, inputs, say, take) => {
  const taken = (files) => {
    if (files.length) take(files);
  };

  for (const input of inputs) {
    input.addEventListener("change", () => {
      taken([...input.files]);
      input.value = ""; // so that the same image can be chosen again
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());

  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) say("There is no image in the clipboard.");
    taken(files);
  });

  // On the whole page: a drop beside the form would make the browser open the image.
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
    if ([...event.dataTransfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory)) {
      say("A folder cannot be dropped here; choose or drop the images in it.");
      return;
    }
    taken([...event.dataTransfer.files]);
  });
};
