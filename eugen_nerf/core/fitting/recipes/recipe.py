"""What a conversion recipe is, and the settings that it is given (Sec. 4 of the paper, App. B.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from eugen_nerf.core.choices import RecipeName
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.fitting.layer_batches import Replay
from eugen_nerf.core.layers.baselines import DenseLinear
from eugen_nerf.core.layers.feature_layer import FeatureLayer


@dataclass(frozen=True)
class ConversionConfig:
    """How dense layers become cheaper ones.

    Examples:
        >>> from eugen_nerf.core import ConversionConfig, EUGenConfig
        >>> ConversionConfig().recipe, ConversionConfig(recipe="random", eugen=EUGenConfig(degree=2)).eugen.degree
        ('rows', 2)
    """

    recipe: RecipeName = "rows"
    """Name of a `Recipe` of `registry.py`."""
    eugen: EUGenConfig = field(default_factory=lambda: EUGenConfig(norm=False))
    """Degree, Phi, norm and distribution of a random G; recipes that choose neurons take Phi from the teacher's
    activation, degree 1, no norm."""
    sweeps: int = 4
    """Re-solves of the teacher's rows for the inputs the layer really gets, aware of its ReLU (`rows` only)."""
    train_steps: int = 0
    """Steps of gradient descent on the layer alone after the closed form: G, A and bias, Huber loss (App. E.4)."""
    train_lr: float = 1e-1
    """Learning rate of those steps (Muon; Adam, at a quarter of it, for what is no matrix of 8 by 8 or more)."""


class FitResult(NamedTuple):
    """How well one layer stands for the teacher's."""

    relative_error: float
    """Squared error over the variation of the teacher's outputs, on held-out samples."""
    ridge: float
    """Ridge term that was chosen; 0 where nothing is solved for."""


@dataclass(frozen=True)
class Recipe(ABC):
    """A way to turn a dense layer into a cheaper one without back-propagation."""

    name: RecipeName
    layer_kind: ClassVar[Literal["eugen", "lowrank"]] = "eugen"
    """Kind of the student's layers, as a `LayerSpec` names it."""
    allocates: ClassVar[Literal["neurons", "ranks", "evenly"]] = "evenly"
    """How a budget is shared among layers: by `error_curve`, by `rank_curves`, or the same share for every layer."""
    chooses_neurons: ClassVar[bool] = False
    """Whether G is made of rows of the teacher, chosen by a metric on the layer's outputs."""

    @property
    def keeps_plain_linears(self) -> bool:
        """Whether a hidden `nn.Linear` of any model can be fitted so that it stays one, of another size."""
        return False

    @abstractmethod
    def new_layer(self, old: DenseLinear, count: int, eugen: EUGenConfig, *, seed: int) -> FeatureLayer:
        """The student's layer with nothing fitted yet; where G is random, it is drawn.

        Args:
            old: the teacher's layer.
            count: number of features m, or rank.
            eugen: of `ConversionConfig`.
            seed: of a random G.

        Raises:
            ConfigError: a number of features that a layer of these widths cannot have.
        """

    @abstractmethod
    def fit(
        self, layer: FeatureLayer, old: DenseLinear, replay: Replay, metric: Tensor, config: ConversionConfig
    ) -> FitResult:
        """Sets all weights of a layer from `new_layer`.

        Args:
            layer: changed.
            old: the teacher's layer.
            replay: inputs of the student's layer with the outputs of the teacher's.
            metric: `[t, l]`; when neurons are chosen, an error e of the outputs counts as `|metric e|^2`.
            config: sweeps and steps.

        Raises:
            ConfigError: too few samples.
        """

    def layer_settings(self, eugen: EUGenConfig, function: str) -> EUGenConfig:
        """What a student's EUGen layer takes of the configured settings.

        Args:
            eugen: of `ConversionConfig`.
            function: the teacher's activation.
        """
        return eugen

    def check_previewed(self) -> None:
        """Refuses a budget that is shared by what neurons are worth.

        Raises:
            ConfigError: the recipe chooses no neurons.
        """
        if self.allocates != "neurons":
            raise ConfigError(
                "units are allocated by how well some stand for all: take recipe rows, compensated or pruned, or give "
                "numbers"
            )

    def error_curve(self, moments: LayerMoments) -> Tensor:
        """Error that the best m features leave, for m = 0, 1, ..., l: float64 `[l + 1]`, falling.

        Only recipes that choose neurons have one; see `check_previewed`.
        """
        raise NotImplementedError(f"recipe {self.name} allocates {self.allocates}")
