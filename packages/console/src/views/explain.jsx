export const Explain = () => <h1 tabIndex={-1}>Explain</h1>;
Explain.title = "Explain";
