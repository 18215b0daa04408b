"""The state of a component: tracked containers, their edits as data, and the values that they can hold."""
