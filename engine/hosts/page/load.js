/* FILES has the texts of modules by name, each after those that it imports: give each an address. */

const modules = {};
for (const [name, text] of Object.entries(FILES)) {
  if (!name.endsWith(".js")) continue;
  const linked = text.replace(/from "\.\/([\w-]+\.js)"/g, (_, from) => `from "${modules[from]}"`);
  modules[name] = URL.createObjectURL(new Blob([linked], { type: "text/javascript" }));
}
const { Board } = await import(modules["board.js"]);
Board.dress(FILES["index.html"], FILES["style.css"]);
