"""`python -m nmt.native`: compile the kernels, or say why there are none."""

from nmt import native

if __name__ == "__main__":
    try:
        native.load()
        print(f"kernels for this CPU are in {native.folder()}")
    except native.NoKernelsError as error:
        print(f"no kernels of our own: {error}; torch's serve")
