/* A board in a notebook's cell: it asks over the widget's comm, pictures are binary buffers. */

const asker = (model) => {
  const mine = crypto.randomUUID?.() ?? String(Math.random());
  const waiting = new Map();
  let number = 0;
  model.on("msg:custom", (message, buffers) => {
    if (message.view !== mine || !waiting.has(message.number)) return;
    const [buffer] = buffers ?? [];
    waiting.get(message.number)({ ...message.answer, picture: buffer && new Blob([buffer]) });
    waiting.delete(message.number);
  });
  return async (asked, picture) => {
    const buffers = picture ? [await picture.arrayBuffer()] : [];
    return new Promise((resolve) => {
      waiting.set(number += 1, resolve);
      model.send({ view: mine, number, asked }, undefined, buffers);
    });
  };
};

function render({ model, el }) {
  const place = document.createElement("div");
  el.append(place);
  const board = new Board(place, asker(model), { height: model.get("height") });
  board.addEventListener("release", ({ detail }) => board.refine(detail.drags, model.get("preset")));
  const heard = ({ progress, version }) => {
    if (progress) board.progress(progress);
    if (version) board.renew(version);
  };
  model.on("msg:custom", heard);
  board.look();
  return () => {
    model.off("msg:custom", heard);
    board.close();
  };
}

export default { render };
