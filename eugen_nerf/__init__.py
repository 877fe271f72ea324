"""EUGen layers for neural fields: nerfstudio methods, closed-form distillation and evaluation."""
