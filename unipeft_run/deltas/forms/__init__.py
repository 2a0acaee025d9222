"""Functional forms: one file a form; `_target_` in `conf/form/` is the registry."""
