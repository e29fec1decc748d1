import { render } from "preact";
import { App } from "./app";
import { guardLeaving } from "./leaving";
import { restore } from "./listening";
import { showInTab } from "./microphone_bar";
import "./style.css";

render(<App />, document.getElementById("page")!);
showInTab();
guardLeaving();
void restore();
