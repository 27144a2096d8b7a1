"""What torch refuses for operators with a C++ gradient, said with the operator's name."""

import functools

# In torch's own words: torch/csrc/autograd/custom_function.{h,cpp}.
_REFUSED = {
    "cannot use C++ torch::autograd::Function with functorch": (
        "a transform of torch.func (grad, vjp, jvp, jacrev, hessian, ...)",
        "Use torch.autograd.grad, with create_graph=True for second derivatives; torch.vmap works.",
    ),
    "jvp is not implemented for the c++ API": (
        "forward-mode differentiation (torch.autograd.forward_ad)",
        "Two reverse passes give the same product: differentiate <grad, u> with respect to u.",
    ),
}


def naming_itself(function):
    """``function``, whose refusals by torch say which operator was called and what to do instead."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            for words, (found, advice) in _REFUSED.items():
                if words in str(error):
                    raise RuntimeError(
                        f"{function.__name__}: expected reverse-mode autograd; found {found}, which "
                        f"torch does not offer to operators with a C++ gradient. {advice}"
                    ) from error
            raise

    return call
