"""Functional forms: one file per form. There is no registry: `conf/form/` names the classes."""
