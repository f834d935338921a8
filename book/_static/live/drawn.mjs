// For a book without Python for the browser: its knobs show what was drawn for them.
import { addKnobs } from "./turnable.mjs";

addKnobs();
