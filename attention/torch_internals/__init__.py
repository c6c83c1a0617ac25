"""The one door to private names of torch and Triton; what each is replaced by where it is missing.

| private | used to | where it is missing |
|---|---|---|
| dispatch keys, function mode, profiler state | call an operator past the dispatcher | torch's dispatcher |
| state of functorch's transforms, C++'s ``apply`` | record a function of autograd fast | ``Function.apply`` |
| the device that new tensors are made on | tell whether one is set | ``torch.get_default_device`` |
| a switch of forward mode | differentiate tangents again | a refusal |
| a mark that torch's compiler reads | keep a check out of compiled graphs | the compiler breaks its graph |
| allocation events of the profiler | read peak memory exactly | unknown, with a warning |
| a block without dispatch modes | call compiled code, which no mode sees into | an error of torch's |
| an attribute that torch's encoder layer reads | keep it from softmax attention of its own | unread |
| Triton's launcher | launch without a look at each argument | ``kernel[grid]`` |
| the class of fake tensors | tell a tensor without numbers | an error of torch's |
| functional collectives | exchange states where compilers and dispatch modes see it | ``torch.distributed`` |
| options of context parallelism | measure it in all its forms | a refusal |
"""
