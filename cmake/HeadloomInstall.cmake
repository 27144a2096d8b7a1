# Two install trees. A C++ one, for find_package(headloom): library, headers, command. And, as the
# component `python`, the files that go into the Python package beside its modules.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# The torch that the library was built against is found where it was, or, in a Python package, beside
# headloom among the installed packages.
set_target_properties(headloom PROPERTIES
  INSTALL_RPATH "$ORIGIN;$ORIGIN/../../torch/lib;${TORCH_INSTALL_PREFIX}/lib"
  EXPORT_NAME headloom)
target_include_directories(headloom INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

install(TARGETS headloom EXPORT headloomTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        COMPONENT cpp)
install(FILES ${CMAKE_BINARY_DIR}/libheadloom.json DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
foreach(folder base tensor mechanisms nn)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/headloom/${folder}
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/headloom COMPONENT cpp
          FILES_MATCHING PATTERN "*.h" PATTERN "*_kernels.h" EXCLUDE)
endforeach()
install(EXPORT headloomTargets NAMESPACE headloom:: COMPONENT cpp
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/headloom)
set(HEADLOOM_TORCH_VERSION ${Torch_VERSION})
configure_package_config_file(
  ${CMAKE_SOURCE_DIR}/cmake/headloomConfig.cmake.in ${CMAKE_BINARY_DIR}/headloomConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/headloom)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/headloomConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/headloomConfig.cmake ${CMAKE_BINARY_DIR}/headloomConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/headloom COMPONENT cpp)
if(HEADLOOM_TOOLS)
  set_target_properties(headloom_command PROPERTIES
    INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${TORCH_INSTALL_PREFIX}/lib")
  install(TARGETS headloom_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT cpp)
endif()

install(TARGETS headloom LIBRARY DESTINATION lib COMPONENT python)
install(FILES ${CMAKE_BINARY_DIR}/libheadloom.json DESTINATION lib COMPONENT python)
