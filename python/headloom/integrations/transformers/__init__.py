"""headloom's mechanisms in models of Hugging Face transformers (5.x).

Importing this module registers with the AttentionInterface, and with the AttentionMaskInterface, the names

==========================  =================================================================
headloom_dot_product        any model: ``model.set_attn_implementation("headloom_dot_product")``
headloom_h_transformer      any model of equal query and key lengths, or through :func:`convert`
headloom_talking_heads      models that :func:`convert` turned
headloom_symmetric          models that :func:`convert` turned
==========================  =================================================================

:func:`convert` turns a BERT, RoBERTa, ALBERT or GPT-2 model in place.

>>> from transformers import BertConfig, BertModel
>>> from headloom.integrations.transformers import convert
>>> model = convert(BertModel(BertConfig(num_hidden_layers=1)), "talking_heads")
"""

try:
    import transformers
except ImportError as missing:
    raise ImportError(
        "headloom.integrations.transformers: expected the package transformers, version 5; found none. "
        "Run `pip install 'headloom[integrations]'`, or `pip install 'transformers>=5'`."
    ) from missing

if int(transformers.__version__.split(".")[0]) < 5:
    raise ImportError(
        "headloom.integrations.transformers: expected transformers 5; found "
        f"{transformers.__version__}. Run `pip install -U transformers`."
    )

from headloom.integrations.transformers._attention import register  # noqa: E402
from headloom.integrations.transformers._convert import convert  # noqa: E402

register()

__all__ = ["convert"]
