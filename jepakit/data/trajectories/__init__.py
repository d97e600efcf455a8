"""The kind `trajectories`: episodes of observations, actions, rewards and ends, in windows."""

from .dataset import Trajectories
from .settings import Config

__all__ = ["Config", "Trajectories"]
