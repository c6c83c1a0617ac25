"""What kernels in C++ share: the compiler, the libraries, their headers, and how they cut a sequence."""
