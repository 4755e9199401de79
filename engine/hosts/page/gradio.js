/* A board in a gradio app: it asks by the component's own function, which waits in no queue. */

(async () => {
  const { Board } = await globalThis.dragnoise;
  let desk = null; // ours: one picture of one person
  let prompt; // what it was told to show

  const addressOf = (blob) => new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:${blob.type || "image/png"};${reader.result.split(";").at(-1)}`);
    reader.readAsDataURL(blob);
  });
  const fileOf = async (address) => address && (await fetch(address)).blob();

  const ask = async (asked, picture) => {
    const answer = await server.ask({ ...asked, desk, prompt, picture: picture && await addressOf(picture) });
    desk = answer.desk ?? desk;
    return { ...answer, picture: await fileOf(answer.picture) };
  };

  element.parentElement.style.padding = 0; // as wide as what is above and below it
  const { height, opens, drags } = props.how;
  const board = new Board(element.querySelector(".dragnoise"), ask, { height, opens, drags });

  const keep = (placed) => { props.value = { desk, version: board.state.version, drags: placed }; };
  const say = (type, placed) => {
    keep(placed);
    trigger(type, { drags: placed });
  };
  const on = (type, call) => board.addEventListener(type, ({ detail }) => call(detail));
  on("opened", () => say("upload", []));
  on("grab", (about) => say("grab", about.drags));
  on("move", (about) => say("move", about.drags));
  on("release", (about) => say("release", about.drags));
  on("painted", () => say("edit", board.drags));
  on("changed", ({ stepped }) => (stepped ? say("undo", []) : keep([])));

  const shown = async () => {
    const { value } = props;
    if (value?.picture) {
      prompt = value.prompt;
      await board.open(await fileOf(value.picture));
      keep([]);
    } else if (value?.desk === desk && value) await board.renew(value.version);
  };
  watch("value", shown);
  await shown();
})();
