"""The client as a Conan package: `conan create .`; with `-o kingpole/*:with_grpc=True` the component for gRPC too."""

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout


class KingpoleConan(ConanFile):
    """Built by CMake, which finds what Conan provides."""

    name = "kingpole"
    version = "0.1.0"
    license = "Apache-2.0"
    url = "https://github.com/kingpole/kingpole"
    description = "Thin client of the Kingpole model server"
    topics = ("inference", "model-serving", "grpc", "flatbuffers")
    package_type = "library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"shared": [True, False], "fPIC": [True, False], "with_grpc": [True, False]}  # noqa: RUF012 - Conan's way
    default_options = {"shared": False, "fPIC": True, "with_grpc": False}  # noqa: RUF012 - Conan's way
    exports_sources = "CMakeLists.txt", "cmake/*", "include/*", "src/*"

    def requirements(self) -> None:
        """Headers are needed to build, libraries to link."""
        self.requires("openssl/[>=3 <4]")
        self.requires("flatbuffers/[>=2.0.8]", visible=False)
        self.requires("nlohmann_json/[>=3.11 <4]", visible=False)
        if self.options.with_grpc:
            self.requires("grpc/[>=1.51]")

    def layout(self) -> None:
        """Build in a folder of its own."""
        cmake_layout(self)

    def generate(self) -> None:
        """Tell CMake where everything is."""
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["KINGPOLE_GRPC"] = bool(self.options.with_grpc)
        toolchain.cache_variables["FLATBUFFERS_INCLUDE_DIR"] = self.dependencies[
            "flatbuffers"
        ].cpp_info.includedirs[0]
        toolchain.generate()

    def build(self) -> None:
        """Compile."""
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self) -> None:
        """Install."""
        CMake(self).install()

    def package_info(self) -> None:
        """Name the targets as the installed configuration does."""
        self.cpp_info.set_property("cmake_file_name", "kingpole")
        client = self.cpp_info.components["client"]
        client.set_property("cmake_target_name", "kingpole::client")
        client.libs = ["kingpole_client"]
        client.requires = ["openssl::ssl", "flatbuffers::flatbuffers", "nlohmann_json::nlohmann_json"]
        if self.options.with_grpc:
            over_grpc = self.cpp_info.components["grpc"]
            over_grpc.set_property("cmake_target_name", "kingpole::grpc")
            over_grpc.libs = ["kingpole_grpc"]
            over_grpc.requires = ["client", "grpc::grpc++"]
