import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """Runs of the main job share what XLA compiled: each makes its networks, and so its programs, anew."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()  # a process that has compiled before has settled on having none
    for name, value in zip(names, (str(tmp_path_factory.mktemp("compiled")), 0.0, -1)):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
