"""Functions of a user's own: how they are found, registered, asked for and measured."""
