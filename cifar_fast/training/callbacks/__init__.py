"""Callbacks that fastai lacks; each decides one thing and undoes what it patches."""
