"""The state of a component: tracked containers, the edits made in them as data, and the values they may hold."""
