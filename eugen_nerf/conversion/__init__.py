"""From a trained run to a converted run: the part of distillation that knows nerfstudio."""
